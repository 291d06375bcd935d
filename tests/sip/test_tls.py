"""TLS of trunks: who is believed, which versions are spoken, in both directions."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sipserver.errors import ConfigError
from sipserver.sip.settings import SipTls
from tests.fakes.sip_peer import status_of
from tests.servers import registrar
from tests.servers.certificate import Certificate
from tests.servers.registrar import Registrar
from tests.sip.test_registration import USERS, cell_with, trunk_at

pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Certificate]:
    return {
        name: Certificate.made(tmp_path_factory.mktemp(name), host)
        for name, host in (("right", "localhost"), ("another", "localhost"), ("elsewhere", "elsewhere.example"))
    }


def at_tls(kamailio: Registrar) -> str:
    return f"localhost:{kamailio.tls_port}"


async def test_registers_and_calls_by_tls(tmp_path: Path, certificates: dict[str, Certificate]) -> None:
    right = certificates["right"]
    async with (
        registrar.running(tmp_path, USERS, tls=right) as kamailio,
        cell_with(trunk_at(at_tls(kamailio), transport="tls"), tls=SipTls(ca=right.certificate)) as trunks,
    ):
        await trunks.registered()
        assert "transport=tls" in (await kamailio.contacts())["alice"].lower()
        leg = await trunks.cell.dial(f"sip:alice@{at_tls(kamailio)};transport=tls", trunk="alice")
        inbound = await asyncio.wait_for(trunks.legs.get(), 10)
        assert (inbound.offer.trunk, inbound.offer.transport) == ("alice", "tls")
        await inbound.reject(486)
        assert (await leg.ended()).code == 486


@pytest.mark.parametrize(("shown", "trusted"), [("right", "another"), ("elsewhere", "elsewhere")])
async def test_a_registrar_that_proves_nothing_gets_no_password(
    tmp_path: Path, certificates: dict[str, Certificate], shown: str, trusted: str
) -> None:
    ca = certificates[trusted].certificate
    with capture_logs() as logs:
        async with (
            registrar.running(tmp_path, USERS, tls=certificates[shown]) as kamailio,
            cell_with(trunk_at(at_tls(kamailio), transport="tls"), tls=SipTls(ca=ca)) as trunks,
        ):
            state = await trunks.failed()
            assert state.reason.startswith("REGISTER: 503")
            assert await kamailio.contacts() == {}
    assert any(entry["event"] == "the certificate of a peer is not believed" for entry in logs)


async def test_takes_calls_by_tls_1_2_alone(certificates: dict[str, Certificate]) -> None:
    right = certificates["right"]
    tls = SipTls(certificate=right.certificate, key=right.key, port=0)
    async with cell_with(trunk_at("192.0.2.1", transport="tls", register=None), tls=tls) as trunks:
        port = trunks.cell.tls_port
        client = ssl.create_default_context(cafile=str(right.certificate))
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname="localhost")
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.2"
        assert "GCM" in writer.get_extra_info("cipher")[0]
        own = writer.get_extra_info("sockname")[1]
        writer.write(
            f"OPTIONS sip:x@localhost SIP/2.0\r\nVia: SIP/2.0/TLS 127.0.0.1:{own};branch=z9hG4bK1;rport\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:x@localhost>\r\nCall-ID: tls\r\nCSeq: 1 OPTIONS\r\n"
            "Content-Length: 0\r\n\r\n".encode()
        )
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert status_of(answer.decode()) == 200
        writer.close()
        old = ssl.create_default_context(cafile=str(right.certificate))
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", port, ssl=old, server_hostname="localhost")


async def test_a_file_that_is_missing_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sip\.tls\.ca"):
        async with cell_with(trunk_at("192.0.2.1", transport="tls"), tls=SipTls(ca=tmp_path / "none")):
            pass
