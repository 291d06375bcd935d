"""The sound of calls that cells place, through the real edge and relay: who hears whom, and how it is coded."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sipserver.edge.cells import CellAddress
from sipserver.edge.edge import Edge
from sipserver.edge.rtpengine import Rtpengine
from sipserver.edge.settings import EdgeSettings, FloodSettings, Listen, RtpengineSettings
from sipserver.trunks.settings import TrunkSettings
from tests.fakes.echo_carrier import EchoCarrier
from tests.harness.phone import Packet, Response, header, tone
from tests.harness.routed_phone import RoutedPhone
from tests.harness.server import free_sip_port
from tests.servers.carrier import Carrier
from tests.servers.rtpengine import relay_settings

pytestmark = pytest.mark.peers

CODECS = ("G722", "PCMA", "PCMU")


class CellPhone(RoutedPhone):
    """A cell that calls through the trunk `carrier`."""

    def __init__(self, inside_port: int, carrier: int) -> None:
        super().__init__(inside_port)
        self.place = f"127.0.0.1:{carrier}"
        """Whom it calls."""

    def request(
        self, method: str, body: str = "", headers: str = "", *, branch: str = "", sequence: int | None = None
    ) -> str:
        if "tag=" not in self.to and method in ("INVITE", "CANCEL"):
            self.target = f"sip:+4930123456@{self.place}"
            self.to = f"<{self.target}>"
            headers += f"Route: <sip:127.0.0.1:{self.server[1]};lr>\r\nX-Sipserver-Trunk: carrier\r\n"
        return super().request(method, body, headers, branch=branch, sequence=sequence)


@dataclass
class Rig:
    edge: Edge
    relay: Rtpengine
    carrier: EchoCarrier
    cell: CellPhone

    async def call(self) -> Response:
        return await asyncio.to_thread(self.cell.invite, "carrier")

    async def hear(self, level: float = 4000) -> list[Packet]:
        """Say a tone until it comes back."""
        self.cell.received.clear()
        async with asyncio.timeout(8):
            while True:
                if not (loud := [packet for packet in list(self.cell.received) if packet.level > level]):
                    self.cell.say(tone(200))
                    await asyncio.sleep(0.1)
                    continue
                return loud

    async def until_free(self) -> None:
        async with asyncio.timeout(5):
            while (await self.relay.statistics()).calls:  # noqa: ASYNC110  rtpengine tells nobody
                await asyncio.sleep(0.02)


@asynccontextmanager
async def rig(
    folder: Path,
    carrier: EchoCarrier,
    relay: RtpengineSettings | None = None,
    listen: tuple[Listen, ...] = (),
    **of_trunk: Any,
) -> AsyncIterator[Rig]:
    settings = EdgeSettings(
        folder=folder,
        listen=listen or (Listen(transport="udp", host="127.0.0.1", port=free_sip_port()),),
        inside_port=free_sip_port(),
        flood=FloodSettings(requests=10_000),
        rtpengine=relay or relay_settings(),
    )
    assert settings.rtpengine is not None
    with carrier:
        trunk = TrunkSettings.model_validate(
            {"name": "carrier", "host": f"127.0.0.1:{carrier.port}", "codecs": ("PCMU",), **of_trunk}
        )
        made = Rtpengine(settings.rtpengine, folder)
        edge = Edge(settings, (trunk,), CODECS)
        cell = CellPhone(settings.inside_port, carrier.port)
        try:
            await made.start()
            await edge.start((CellAddress("127.0.0.1", cell.sip_port, 4),))
            yield Rig(edge, made, carrier, cell)
        finally:
            await asyncio.to_thread(cell.close)
            await edge.stop()
            await made.stop()


async def test_both_hear_each_other_through_the_relay_and_nothing_stays(tmp_path: Path) -> None:
    async with rig(tmp_path, EchoCarrier(), srtp="off") as made:
        for _ in range(2):
            answer = await made.call()
            assert answer.code == 200, answer.text
            offer = made.carrier.offers[-1]
            assert f"m=audio {made.cell.rtp_port} " not in offer
            assert f"m=audio {made.carrier.rtp_port} " not in answer.text
            assert re.search(r"^m=audio \d+ RTP/AVP 0 101\r$", offer, re.M)
            assert "crypto" not in offer
            await made.hear()
            assert {port for _, port in made.carrier.sources} != {made.cell.rtp_port}
            made.carrier.reinvite()
            await asyncio.to_thread(made.cell.requests.get, timeout=5)
            assert (await asyncio.to_thread(made.cell.transact, "INVITE", made.cell.sdp())).code == 200
            await made.hear()
            assert (await asyncio.to_thread(made.cell.bye)).code == 200
            await made.until_free()


@pytest.mark.parametrize("srtp", ["offered", "required"])
async def test_encrypted_outside(tmp_path: Path, srtp: str) -> None:
    async with rig(tmp_path, EchoCarrier(encrypts=True), srtp=srtp) as made:
        answer = await made.call()
        assert answer.code == 200, answer.text
        profile = "RTP/AVP" if srtp == "offered" else "RTP/SAVP"
        assert re.search(rf"^m=audio \d+ {profile} 0 101\r$", made.carrier.offers[0], re.M)
        assert "a=crypto:" in made.carrier.offers[0]
        assert "NULL" not in made.carrier.offers[0]  # ciphers that do not encrypt
        assert re.search(r"^m=audio \d+ RTP/AVP 0", answer.text, re.M)
        assert "crypto" not in answer.text
        assert header(answer.text, "X-Sipserver-Srtp") == "yes"
        await made.hear()
        assert made.carrier.clear
        assert not set(made.carrier.clear) & set(made.carrier.packets)
        assert (await asyncio.to_thread(made.cell.transact, "INVITE", made.cell.sdp())).code == 200
        assert re.search(rf"^m=audio \d+ {profile} 0 101\r$", made.carrier.offers[1], re.M)
        assert "a=crypto:" in made.carrier.offers[1]
        await made.hear()
        assert (await asyncio.to_thread(made.cell.bye)).code == 200
        await made.until_free()


async def test_a_peer_that_cannot_encrypt_is_heard_where_that_is_allowed(tmp_path: Path) -> None:
    async with rig(tmp_path, EchoCarrier(), srtp="offered") as made:
        answer = await made.call()
        assert answer.code == 200
        assert header(answer.text, "X-Sipserver-Srtp") == "no"
        await made.hear()


async def test_a_peer_that_does_not_encrypt_is_not_heard_where_it_must(tmp_path: Path) -> None:
    async with rig(tmp_path, EchoCarrier(profile="RTP/AVP"), srtp="required") as made:
        answer = await made.call()
        assert answer.code == 200
        assert "m=audio" not in answer.text  # so a cell hangs up
        assert (await asyncio.to_thread(made.cell.bye)).code == 200
        await made.until_free()


@pytest.mark.parametrize("codecs", [("opus", "PCMU"), ("opus",)])
async def test_opus_outside(tmp_path: Path, codecs: tuple[str, ...]) -> None:
    async with rig(tmp_path, EchoCarrier("opus"), srtp="off", codecs=codecs) as made:
        answer = await made.call()
        assert answer.code == 200, answer.text
        formats = re.search(r"^m=audio \d+ RTP/AVP (.*)\r$", made.carrier.offers[0], re.M)
        assert formats is not None
        assert ("0" in formats[1].split()) == ("PCMU" in codecs)
        assert "opus/48000/2" in made.carrier.offers[0]
        assert re.search(r"^m=audio \d+ RTP/AVP 0", answer.text, re.M)
        await made.hear(2000)
        assert (await asyncio.to_thread(made.cell.transact, "INVITE", made.cell.sdp())).code == 200
        async with asyncio.timeout(8):
            while not (await made.relay.statistics()).transcoded:
                await made.hear(2000)


async def test_where_opus_is_offered_a_peer_without_it_costs_nothing(tmp_path: Path) -> None:
    async with rig(tmp_path, EchoCarrier("PCMU"), srtp="off", codecs=("opus", "PCMU")) as made:
        assert (await made.call()).code == 200
        await made.hear()
        assert not (await made.relay.statistics()).transcoded


async def test_ipv6_outside(tmp_path: Path) -> None:
    """Also where only calls that need the relay go through it: cells have no IPv6."""
    host = "[::1]"
    async with Carrier(_echoes_nothing, host="::1").running() as carrier:
        listen = (Listen(transport="udp", host="::1", port=free_sip_port()),)
        async with rig(
            tmp_path, EchoCarrier(), relay_settings(relay="needed"), srtp="off", host=carrier.address, listen=listen
        ) as made:
            made.cell.place = f"{host}:{carrier.port}"
            answer = await made.call()
            assert answer.code == 200, answer.text
            offer = carrier.of("INVITE")[0]
            assert "c=IN IP6 ::1" in offer
            assert re.search(r"^c=IN IP4 127\.0\.0\.1\r$", answer.text, re.M)
            assert (await asyncio.to_thread(made.cell.transact, "INVITE", made.cell.sdp())).code == 200
            assert "c=IN IP6 ::1" in carrier.of("INVITE")[1]
            assert (await asyncio.to_thread(made.cell.bye)).code == 200
            await made.until_free()


def _echoes_nothing(carrier: Carrier, request: str) -> None:
    body = "v=0\r\no=- 7 7 IN IP6 ::1\r\ns=-\r\nc=IN IP6 ::1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n"
    carrier.answer(request, "200 OK", body=body if request.startswith("INVITE ") else "")


async def test_no_codec_is_left(tmp_path: Path) -> None:
    async with rig(tmp_path, EchoCarrier("G722"), relay_settings(relay="needed"), srtp="off", codecs=("G722",)) as made:
        assert (await made.call()).code == 488
        assert not made.carrier.offers


async def test_where_only_some_need_the_relay_the_others_go_past_it(tmp_path: Path) -> None:
    async with rig(
        tmp_path, EchoCarrier(), relay_settings(relay="needed"), srtp="off", codecs=("PCMU", "PCMA")
    ) as made:
        answer = await made.call()
        assert answer.code == 200
        assert f"m=audio {made.cell.rtp_port} " in made.carrier.offers[0]
        assert f"m=audio {made.carrier.rtp_port} " in answer.text
        await made.hear()
        assert not (await made.relay.statistics()).calls


async def test_a_refused_call_leaves_nothing_in_the_relay(tmp_path: Path) -> None:
    async with rig(tmp_path, EchoCarrier(refusal=486)) as made:
        assert (await made.call()).code == 486
        await made.until_free()


async def test_without_the_relay_a_call_is_refused(tmp_path: Path) -> None:
    async with rig(tmp_path, EchoCarrier()) as made:
        await made.relay.stop()
        assert (await made.call()).code == 503
        assert not made.carrier.offers


class Fork(EchoCarrier):
    """Two callees behind one carrier: one rings with sound, the other one answers."""

    def __init__(self, other: EchoCarrier) -> None:
        super().__init__()
        self._other = other

    def _take(self, text: str, peer: tuple[str, int]) -> None:
        if text.startswith("INVITE ") and "tag=" not in header(text, "To"):
            body = text.partition("\r\n\r\n")[2]
            self.offers.append(body)
            self._reply(text, peer, "183 Session Progress", self.sdp(body))
            time.sleep(0.3)  # in one breath, two processes of Kamailio could change their order
            own, self._tag = self._tag, "other"
            self._reply(text, peer, "200 OK", self._other.sdp(body))
            self._tag = own
        else:
            super()._take(text, peer)


async def test_of_a_forked_call_who_answers_is_heard(tmp_path: Path) -> None:
    other = EchoCarrier()
    with other:
        async with rig(tmp_path, Fork(other), srtp="off") as made:
            answer = await made.call()
            assert answer.code == 200
            assert answer.header("To").endswith(";tag=other")
            await made.hear()
            assert other.packets
            assert (await asyncio.to_thread(made.cell.bye)).code == 200
            await made.until_free()
