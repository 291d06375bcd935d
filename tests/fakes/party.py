"""Far ends of a call that each say a tone of their own, and tell whose tones they hear: who hears whom, on the wire."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

import numpy as np

from sipserver.codecs.g711 import G711Decoder, G711Encoder
from tests.fakes.sip_peer import PeerCall, RtpPeer, SipPeer, body_of, header, sdp, status_of
from tests.fakes.sip_rig import Listener, Rig

TONES_HZ = {"caller": 400, "callee": 650, "third": 900, "fourth": 1150}
"""Multiples of 50, so that 20 ms hold whole periods."""
_WINDOW = 10  # packets: 200 ms
_AUDIBLE = 500.0
TIMEOUT_S = 8.0


def payload_of(hz: float) -> bytes:
    """20 ms of a tone as mu-law; repeated, it has no seam."""
    samples = (8000 * np.sin(2 * np.pi * hz * np.arange(160) / 8000)).astype(np.int16)
    return G711Encoder.mu_law().encode(samples)


class Party:
    """name: a key of TONES_HZ. port: where the server's RTP for it goes, known once it has an SDP of the server."""

    def __init__(self, name: str, peer: SipPeer, media: RtpPeer) -> None:
        self.name, self.peer, self.media = name, peer, media
        self.invite = ""
        self.call: PeerCall | None = None
        self._packets: deque[bytes] = deque(maxlen=_WINDOW)
        self._talk = AsyncExitStack()

    @property
    def sdp(self) -> str:
        return sdp(self.media.port)

    async def calls(self, rig: Rig, user: str = "echo", headers: str = "") -> Listener:
        """Call the rig, be answered, begin to talk. Returns the rig's listener of the leg."""
        self.call = self.peer.call(user)
        listener = await self.call.connect_with(rig, self.sdp, headers)
        await self.talk(self.call.media_port)
        return listener

    async def dials(self, user: str, headers: str = "") -> PeerCall:
        """Call a server that answers by itself, and begin to talk."""
        self.call = call = self.peer.call(user)
        call.invite(self.sdp, headers)
        answer = await call.final()
        assert status_of(answer) == 200, answer
        call.ack()
        await self.talk(call.media_port)
        return call

    async def is_called(self) -> str:
        """Wait for the server's INVITE."""
        self.invite = await self.peer.receive("INVITE")
        return self.invite

    async def accepts(self, headers: str = "") -> None:
        """200, ACK, begin to talk."""
        self.peer.answer(self.invite, "200 OK", body=self.sdp, headers=headers, tag=self.name)
        await self.peer.receive("ACK")
        await self.talk(media_port(self.invite))

    async def talk(self, to_port: int) -> None:
        await self._talk.enter_async_context(self.media.stream(to_port, payload_of(TONES_HZ[self.name])))

    async def silence(self) -> None:
        await self._talk.aclose()

    def request(self, method: str, *, sequence: int = 1, headers: str = "", body: str = "") -> str:
        """A request of this party within the dialog in which the server called it."""
        contact = header(self.invite, "Contact").strip("<>").partition(">")[0]
        kind = "Content-Type: application/sdp\r\n" if body else ""
        head = (
            f"{method} {contact} SIP/2.0",
            f"Via: SIP/2.0/UDP 127.0.0.1:{self.peer.port};rport;branch=z9hG4bK{uuid.uuid4().hex}",
            "Max-Forwards: 70",
            f"From: {header(self.invite, 'To')};tag={self.name}",
            f"To: {header(self.invite, 'From')}",
            f"Call-ID: {header(self.invite, 'Call-ID')}",
            f"CSeq: {sequence} {method}",
            f"Contact: <sip:{self.name}@127.0.0.1:{self.peer.port}>",
        )
        lines = "".join(f"{line}\r\n" for line in head)
        return f"{lines}{headers}{kind}Content-Length: {len(body)}\r\n\r\n{body}"

    async def hears(self, *names: str) -> None:
        """Wait until exactly the tones of these parties are heard, for 200 ms on end."""
        self._packets.clear()
        heard: set[str] = set()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                while True:
                    self._packets.append((await self.media.receive(TIMEOUT_S)).payload)
                    if len(self._packets) == _WINDOW:
                        heard = tones_in(self._packets)
                        if heard == set(names):
                            return
        except TimeoutError:
            raise AssertionError(f"{self.name} hears {heard or 'nothing'}, not {names or 'nothing'}") from None

    async def close(self) -> None:
        await self._talk.aclose()


def tones_in(payloads: Iterable[bytes]) -> set[str]:
    samples = G711Decoder.mu_law().decode(b"".join(payloads)).astype(np.float64)
    spectrum = 2 * np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) / (len(samples) / 2)
    step_hz = 8000 / len(samples)
    return {name for name, hz in TONES_HZ.items() if spectrum[round(hz / step_hz)] > _AUDIBLE}


def media_port(text: str) -> int:
    """Of the audio line of an SDP."""
    line = next(line for line in body_of(text).splitlines() if line.startswith("m=audio "))
    return int(line.split()[1])


@asynccontextmanager
async def parties(rig: Rig, *names: str) -> AsyncIterator[list[Party]]:
    """So many far ends of a cell, each on ports of its own; they are closed at the end."""
    async with parties_at(rig.port, *names) as made:
        yield made


@asynccontextmanager
async def parties_at(server_port: int, *names: str) -> AsyncIterator[list[Party]]:
    """The same for any server."""
    async with AsyncExitStack() as stack:
        made = []
        for name in names:
            peer = await stack.enter_async_context(SipPeer.open(server_port))
            party = Party(name, peer, await peer.rtp())
            stack.push_async_callback(party.close)
            made.append(party)
        yield made
