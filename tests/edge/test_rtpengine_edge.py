"""The real edge with the real relay: what the whole configuration makes of the media routes."""

from __future__ import annotations

import asyncio
import audioop
import base64
import contextlib
import os
import re
import struct
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from sipserver.edge.cells import CellAddress
from sipserver.edge.edge import Edge
from sipserver.edge.rtpengine import Rtpengine
from sipserver.edge.settings import EdgeSettings, FloodSettings, Listen
from sipserver.trunks.settings import TrunkLimits, TrunkSettings
from tests.fakes.echo_cell import EchoCell
from tests.fakes.srtp import Srtp
from tests.harness.phone import tone
from tests.harness.routed_phone import RoutedPhone, RoutedPhone6
from tests.servers.rtpengine import relay_settings

CODECS = ("G722", "PCMA", "PCMU")


class Rig:
    def __init__(self, folder: Path, port: int, inside_port: int) -> None:
        self.port = port
        self.settings = EdgeSettings(
            folder=folder,
            listen=(
                Listen(transport="udp", host="127.0.0.1", port=port),
                Listen(transport="udp", host="::1", port=port),
            ),
            inside_port=inside_port,
            flood=FloodSettings(requests=10_000),
            rtpengine=relay_settings(),
        )
        trunk = TrunkSettings(
            name="acme.de",
            sources=("127.0.0.1/32", "::1/128"),
            codecs=("opus", "PCMA", "PCMU"),
            limits=TrunkLimits(calls_per_s=100),
        )
        assert self.settings.rtpengine is not None
        self.relay = Rtpengine(self.settings.rtpengine, folder)
        self.edge = Edge(self.settings, (trunk,), CODECS)


@pytest.fixture
async def rig(tmp_path: Path, free_sip_port: Callable[[], int]) -> AsyncIterator[tuple[Rig, EchoCell]]:
    with EchoCell(("PCMA",)) as cell:
        made = Rig(tmp_path, free_sip_port(), free_sip_port())
        try:
            await made.relay.start()
            await made.edge.start((CellAddress("127.0.0.1", cell.port, 4),))
            yield made, cell
        finally:
            await made.edge.stop()
            await made.relay.stop()


def opus(phone: RoutedPhone) -> str:
    start = phone.sdp().partition("m=audio")[0]
    return f"{start}m=audio {phone.rtp_port} RTP/AVP 96\r\na=rtpmap:96 opus/48000/2\r\n"


async def test_calls_go_through_the_relay_and_leave_nothing(rig: tuple[Rig, EchoCell]) -> None:
    made, cell = rig
    cell.codecs = ("PCMU",)

    def talk(phone: RoutedPhone) -> None:
        with phone:
            answer = phone.invite("echo")
            assert answer.code == 200, answer.text
            assert f"m=audio {cell.rtp_port} " not in answer.text
            phone.say(tone(400))
            while not [packet for packet in phone.received if packet.level > 8000]:
                phone.received.clear()
            assert phone.transact("INVITE", phone.sdp("sendonly")).code == 200
            assert "RTP/AVP" in cell.offers[-1]
            assert f"m=audio {phone.rtp_port} " not in cell.offers[-1]
            assert phone.bye().code == 200

    for kind in (RoutedPhone, RoutedPhone6):
        await asyncio.to_thread(talk, kind(made.port))
        async with asyncio.timeout(5):
            while (await made.relay.statistics()).calls:  # noqa: ASYNC110  rtpengine tells nobody
                await asyncio.sleep(0.02)
    statistics = await made.relay.statistics()
    assert statistics.calls_total == 2
    assert statistics.packets > 0


async def test_only_a_foreign_codec_is_transcoded(rig: tuple[Rig, EchoCell]) -> None:
    made, cell = rig

    def call() -> str:
        with RoutedPhone(made.port) as phone:
            answer = phone.invite("echo", body=opus(phone))
            assert answer.code == 200, answer.text
            return answer.text

    answer = await asyncio.to_thread(call)
    assert re.search(r"^m=audio \d+ RTP/AVP 96\r$", answer, re.M)
    assert re.search(r"^m=audio \d+ RTP/AVP 9 8 0\r$", cell.offers[0], re.M)


class KeyedPhone(RoutedPhone):
    """Offers keys beside RTP/AVP (RFC 8643) and encrypts what it sends."""

    def __init__(self, server_port: int) -> None:
        super().__init__(server_port)
        key = os.urandom(30)
        self._offered, self._own = base64.b64encode(key).decode(), Srtp(key)
        self.mangle = lambda packet: iter((self._own.protect(packet),))

    def sdp(self, direction: str = "sendrecv", formats: str = "0 101", ptime: int = 20) -> str:
        return super().sdp(direction, formats, ptime) + f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{self._offered}\r\n"

    def understood(self, key: str) -> list[bytes]:
        """Payloads that came, decrypted with the answer's key."""
        theirs, found = Srtp(base64.b64decode(key + "==")), []
        for packet in list(self.received):
            head = struct.pack("!BBHII", 0x80, packet.payload_type, packet.sequence, packet.timestamp, packet.ssrc)
            with contextlib.suppress(ValueError):  # the first has its marker set
                found.append(theirs.unprotect(head + packet.payload)[12:])
        return found


async def test_keys_beside_a_plain_profile_are_used(rig: tuple[Rig, EchoCell]) -> None:
    made, cell = rig
    cell.codecs = ("PCMU",)

    def call() -> None:
        with KeyedPhone(made.port) as phone:
            answer = phone.invite("echo")
            assert answer.code == 200, answer.text
            for _ in range(2):
                keyed = re.search(
                    r"^a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:([A-Za-z0-9+/=]+)", phone.answers[-1], re.M
                )
                assert keyed is not None, phone.answers[-1]
                assert re.search(r"^m=audio \d+ RTP/AVP 0", phone.answers[-1], re.M)
                assert "crypto" not in cell.offers[-1]
                phone.received.clear()
                phone.say(tone(400))
                while not any(audioop.rms(audioop.ulaw2lin(p, 2), 2) > 8000 for p in phone.understood(keyed[1])):
                    time.sleep(0.02)
                assert phone.transact("INVITE", phone.sdp()).code == 200
            assert phone.bye().code == 200

    await asyncio.wait_for(asyncio.to_thread(call), 20)


async def test_without_the_relay_calls_are_refused_and_no_place_is_lost(rig: tuple[Rig, EchoCell]) -> None:
    made, cell = rig
    await made.relay.stop()

    def call() -> int:
        with RoutedPhone(made.port) as phone:
            return phone.invite("echo", body=opus(phone)).code

    assert await asyncio.to_thread(call) == 503
    assert not cell.offers
    async with asyncio.timeout(5):
        while [state.calls for state in (await made.edge.state()).cells] != [0]:  # noqa: ASYNC110  as above
            await asyncio.sleep(0.02)
