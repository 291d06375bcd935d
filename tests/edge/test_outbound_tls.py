"""Calls that cells place by TLS: to whom, and to nobody else."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sipserver.edge import render, ways
from sipserver.edge.settings import Listen
from sipserver.trunks.settings import TrunkSettings
from tests.edge.test_outbound import Rig
from tests.fakes.sip_peer import header, sdp, status_of
from tests.harness.server import free_sip_port
from tests.servers.authority import Authority, serving
from tests.servers.carrier import INSIDE, Behave, Carrier, placer, take
from tests.servers.kamailio import running

pytestmark = pytest.mark.peers


@asynccontextmanager
async def tls_rig(
    folder: Path, *names: str, behave: Behave = take, trusted: bool = True, ca: bool = True, **of_trunk: Any
) -> AsyncIterator[Rig]:
    """names: what the carrier's certificate says that it is. trusted: its authority is the one that the edge knows,
    from its own settings (ca) or the system's.
    """
    ours = Authority(folder / "ours").certify("edge", "DNS:edge.example")
    authority = Authority(folder / "ours") if trusted else Authority(folder / "theirs", "Somebody else")
    if trusted:
        ours = authority.certify("edge", "DNS:edge.example")
    if not ca:
        ours = ours.model_copy(update={"ca": None})
    carrier = Carrier(behave, transport="tls")
    async with carrier.running(serving(authority.certify("carrier", *names))):
        listen = (Listen(transport="tls", host="127.0.0.1", port=free_sip_port()),)
        facts = {"name": "carrier", "host": carrier.address, "transport": "tls", **of_trunk}
        trunk = TrunkSettings.model_validate(facts)
        async with (
            running(folder / "edge", (), (trunk,), inside=INSIDE, listen=listen, tls=ours) as edge,
            placer(edge) as cell,
        ):
            yield Rig(edge, carrier, cell)


@pytest.mark.parametrize("names", [("DNS:other.example", "IP:127.0.0.1"), ("IP:127.0.0.1",)])
async def test_tls_to_a_peer_that_is_who_it_should_be(tmp_path: Path, names: tuple[str, ...]) -> None:
    async with tls_rig(tmp_path, *names) as made:
        call = made.call()
        assert status_of(await call.invite()) == 200
        invite = made.carrier.of("INVITE")[0]
        assert header(invite, "Via").startswith("SIP/2.0/TLS ")
        assert INSIDE not in invite
        made.carrier.send(made.carrier.request("INFO", invite))
        await made.answered(call, "INFO")
        assert status_of(await call.bye()) == 200


async def test_tls_to_a_stranger_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its certificate is in order, and signed by an authority that the edge does not know."""
    monkeypatch.setattr(render, "OUTSIDE_MS", 1000)
    async with tls_rig(tmp_path, "IP:127.0.0.1", trusted=False) as made:
        assert status_of(await made.call().invite()) in (408, 503)
        assert made.carrier.received == []


async def test_without_a_list_of_ours_the_systems_authorities_are_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "OUTSIDE_MS", 1000)
    for known in (False, True):
        folder = tmp_path / str(known)
        async with tls_rig(folder, "IP:127.0.0.1", ca=False) as made:
            if known:
                system = folder / "system"
                system.mkdir()
                shutil.copy(folder / "ours" / "authority.pem", system / "some.pem")
                await asyncio.to_thread(subprocess.run, ["openssl", "rehash", str(system)], check=True)
                monkeypatch.setattr(render, "AUTHORITIES", system)
                await made.edge.start()
            assert status_of(await made.call().invite()) == (200 if known else 408)


async def test_a_tls_peer_with_another_name_learns_no_secret_and_gets_no_call(tmp_path: Path) -> None:
    asked = 'Digest realm="carrier", nonce="abc", algorithm=MD5, qop="auth"'
    answers = ["407 Proof", "180 Ringing", "200 OK"]

    def behave(carrier: Carrier, request: str) -> None:
        if request.startswith("INVITE"):
            for status in answers[:1] if len(answers) == 3 else answers:
                more = f"Proxy-Authenticate: {asked}\r\n" if status.startswith("407") else ""
                carrier.answer(request, status, more=more, body=sdp(9, "0") if status == "200 OK" else "")
            answers[:1] = []
        else:
            carrier.answer(request, "200 OK")

    async with tls_rig(tmp_path, "DNS:127.0.0.1", "IP:127.0.0.10", "DNS:evil.example", behave=behave) as made:
        challenged = await made.call().invite()
        assert status_of(challenged) == 503
        assert "nonce" not in challenged
        call = made.call()
        made.cell.send(call.request("INVITE", body=sdp(9, "0")))
        answer = await made.cell.receive()
        assert status_of(answer) == 200
        assert not answer.partition("\r\n\r\n")[2]
        assert not any(status_of(text) == 180 for text in made.cell.backlog)


def test_names_of_a_certificate() -> None:
    assert ways.certificate_names("Sip.Carrier.example") == (
        f"8213{b'sip.carrier.example'.hex()}",
        f"8211{b'*.carrier.example'.hex()}",
    )
    assert ways.certificate_names("carrier.example") == (f"820f{b'carrier.example'.hex()}",)
    assert ways.certificate_names("192.0.2.1") == ("8704c0000201",)
    assert ways.certificate_names("2001:db8::1") == ("871020010db8000000000000000000000001",)
