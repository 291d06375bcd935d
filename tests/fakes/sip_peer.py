"""A SIP user agent and an RTP end for tests: asyncio, pure Python, every packet written and read by hand.

`SipPeer` sends what it is told and answers nothing by itself; `PeerCall` is one dialog; `RtpPeer` is one UDP port.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import struct
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.fakes.sip_rig import Listener, Rig

TIMEOUT_S = 5.0
_MAPS = {
    "0": "a=rtpmap:0 PCMU/8000", "8": "a=rtpmap:8 PCMA/8000", "9": "a=rtpmap:9 G722/8000",
    "18": "a=rtpmap:18 G729/8000",
    "101": "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16",
}  # fmt: skip


def header(text: str, name: str) -> str:
    found = re.search(rf"^{re.escape(name)}[ \t]*:[ \t]*(.*?)[ \t]*\r?$", text, re.I | re.M)
    return found.group(1) if found else ""


def body_of(text: str) -> str:
    return text.partition("\r\n\r\n")[2]


def status_of(text: str) -> int:
    """The status of a response, 0 for a request."""
    return int(text.split(" ", 2)[1]) if text.startswith("SIP/2.0 ") else 0


def sdp(
    port: int,
    formats: str = "0 101",
    *,
    direction: str = "sendrecv",
    ptime: int = 20,
    version: int = 1,
    extra: str = "",
) -> str:
    maps = "".join(f"{_MAPS[number]}\r\n" for number in formats.split() if number in _MAPS)
    return (
        f"v=0\r\no=peer 1 {version} IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP {formats}\r\n{maps}a=ptime:{ptime}\r\na={direction}\r\n{extra}"
    )


@dataclass(frozen=True, slots=True)
class RtpPacket:
    payload_type: int
    marker: bool
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes


class _Queue(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.waiting: asyncio.Queue[tuple[bytes, tuple[str, int]]] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self.waiting.put_nowait((data, (addr[0], addr[1])))

    def error_received(self, exc: Exception) -> None:
        """The other end has closed its port: what was sent there is lost, as on any network."""


class _Socket:
    def __init__(self, transport: asyncio.DatagramTransport, protocol: _Queue) -> None:
        self._transport = transport
        self._protocol = protocol
        self.port: int = transport.get_extra_info("sockname")[1]

    @classmethod
    async def open(cls) -> _Socket:
        transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(_Queue, ("127.0.0.1", 0))
        return cls(transport, protocol)

    def send(self, packet: bytes, port: int) -> None:
        self._transport.sendto(packet, ("127.0.0.1", port))

    async def receive(self, timeout_s: float) -> bytes:
        async with asyncio.timeout(timeout_s):
            return (await self._protocol.waiting.get())[0]

    def pending(self) -> list[bytes]:
        found = []
        while not self._protocol.waiting.empty():
            found.append(self._protocol.waiting.get_nowait()[0])
        return found

    def close(self) -> None:
        self._transport.close()


class RtpPeer:
    """One RTP end. `send` writes one packet, `stream` a steady flow of them."""

    def __init__(self, endpoint: _Socket) -> None:
        self._socket = endpoint
        self.port = endpoint.port
        self.ssrc, self.sequence, self.timestamp = 0x1234ABCD, 100, 8000

    def send(
        self, to_port: int, payload: bytes, *, payload_type: int = 0, marker: bool = False, step: int = 160
    ) -> None:
        first = (0x80, payload_type | (0x80 if marker else 0))
        head = struct.pack("!BBHII", *first, self.sequence & 0xFFFF, self.timestamp & 0xFFFFFFFF, self.ssrc)
        self._socket.send(head + payload, to_port)
        self.sequence += 1
        self.timestamp += step

    def event(self, to_port: int, event: int, duration: int, *, end: bool = False, marker: bool = False) -> None:
        """One RFC 4733 packet; its timestamp stays until you move it. duration: in timestamp units."""
        self.send(
            to_port,
            struct.pack("!BBH", event, (0x80 if end else 0) | 10, duration),
            payload_type=101,
            marker=marker,
            step=0,
        )

    async def press(self, to_port: int, event: int, *, marker: bool = True, packets: int = 5) -> None:
        """A whole key press: packets 20 ms apart, the last one three times."""
        for index in range(packets):
            self.event(to_port, event, (index + 1) * 160, marker=marker and index == 0)
            await asyncio.sleep(0.02)
        for _ in range(3):
            self.event(to_port, event, packets * 160, end=True)
        self.timestamp += packets * 160 + 800

    @asynccontextmanager
    async def stream(
        self, to_port: int, *payloads: bytes, payload_type: int = 0, ptime_ms: int = 20
    ) -> AsyncIterator[None]:
        """Send one of the payloads (without any: silence) every ptime while the block runs, again and again."""

        async def flow() -> None:
            for payload in itertools.cycle(payloads or (b"\xff" * 160,)):
                self.send(to_port, payload, payload_type=payload_type, step=ptime_ms * 8)
                await asyncio.sleep(ptime_ms / 1000)

        task = asyncio.create_task(flow())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def receive(self, timeout_s: float = TIMEOUT_S) -> RtpPacket:
        return _parsed(await self._socket.receive(timeout_s))

    def pending(self) -> list[RtpPacket]:
        """All packets that wait to be read."""
        return [_parsed(raw) for raw in self._socket.pending()]


def _parsed(raw: bytes) -> RtpPacket:
    _, second, sequence, timestamp, ssrc = struct.unpack("!BBHII", raw[:12])
    return RtpPacket(second & 0x7F, bool(second & 0x80), sequence, timestamp, ssrc, raw[12:])


class SipPeer:
    """Use as `async with SipPeer.open(server_port) as peer`."""

    def __init__(self, endpoint: _Socket, server_port: int) -> None:
        self._socket = endpoint
        self.port = endpoint.port
        self.server_port = server_port
        self._backlog: list[str] = []
        self._rtp: list[_Socket] = []

    @classmethod
    @asynccontextmanager
    async def open(cls, server_port: int) -> AsyncIterator[SipPeer]:
        endpoint = await _Socket.open()
        peer = cls(endpoint, server_port)
        try:
            yield peer
        finally:
            for media in peer._rtp:
                media.close()
            endpoint.close()

    async def rtp(self) -> RtpPeer:
        endpoint = await _Socket.open()
        self._rtp.append(endpoint)
        return RtpPeer(endpoint)

    def send(self, text: str | bytes) -> None:
        self._socket.send(text if isinstance(text, bytes) else text.encode(), self.server_port)

    async def receive(self, *wanted: str | int, timeout_s: float = TIMEOUT_S) -> str:
        """The next message that is one of these methods or statuses ("INVITE", 200, "2xx"); others wait their turn."""

        def fits(text: str) -> bool:
            status = status_of(text)
            names: set[str | int] = {status, f"{status // 100}xx"} if status else {text.split(" ", 1)[0]}
            return not wanted or bool(names & set(wanted))

        for index, text in enumerate(self._backlog):
            if fits(text):
                return self._backlog.pop(index)
        async with asyncio.timeout(timeout_s):
            while True:
                text = (await self._socket.receive(timeout_s)).decode()
                if not text.strip():
                    continue
                if fits(text):
                    return text
                self._backlog.append(text)

    def seen(self) -> list[str]:
        """All messages that wait to be read."""
        self._backlog += [raw.decode() for raw in self._socket.pending() if raw.strip()]
        return list(self._backlog)

    def call(self, user: str = "echo", **facts: Any) -> PeerCall:
        return PeerCall(self, f"sip:{user}@127.0.0.1:{self.server_port}", **facts)

    async def once(self, method: str, headers: str = "", body: str = "") -> str:
        """One request outside any dialog; its final response."""
        self.send(self.call().request(method, body=body, headers=headers))
        while True:
            answer = await self.receive("2xx", "3xx", "4xx", "5xx", "6xx")
            if header(answer, "CSeq").endswith(method):
                return answer

    def answer(self, request: str, status: str, *, body: str = "", headers: str = "", tag: str = "peer") -> None:
        """Respond to a request of the server."""
        vias = "".join(f"{line}\r\n" for line in request.split("\r\n") if line.lower().startswith("via:"))
        to = header(request, "To")
        to = to if "tag=" in to else f"{to};tag={tag}"
        kind = "Content-Type: application/sdp\r\n" if body else ""
        self.send(
            f"SIP/2.0 {status}\r\n{vias}From: {header(request, 'From')}\r\nTo: {to}\r\n"
            f"Call-ID: {header(request, 'Call-ID')}\r\n"
            f"CSeq: {header(request, 'CSeq')}\r\nContact: <sip:peer@127.0.0.1:{self.port}>\r\n{headers}{kind}"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        )


class PeerCall:
    """One dialog that the peer begins."""

    def __init__(self, peer: SipPeer, target: str, *, from_value: str = "") -> None:
        self.peer = peer
        self.target = target
        self.call_id = f"{uuid.uuid4().hex}@peer"
        self.from_value = from_value or f"<sip:peer@127.0.0.1:{peer.port}>"
        self.tag = uuid.uuid4().hex[:8]
        self.to = f"<{target}>"
        self._sequences = itertools.count(1)
        self.sequence = 0
        self.branch = ""
        self.media_port = 0
        self.invite_text = ""

    def request(self, method: str, *, body: str = "", headers: str = "", same_transaction: bool = False) -> str:
        if method == "INVITE" or not (same_transaction or method == "ACK"):
            self.sequence = next(self._sequences)
        if not same_transaction:
            self.branch = "z9hG4bK" + uuid.uuid4().hex
        kind = "Content-Type: application/sdp\r\n" if body.startswith("v=0") else ""
        return (
            f"{method} {self.target} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP 127.0.0.1:{self.peer.port};rport;branch={self.branch}\r\n"
            f"Max-Forwards: 70\r\nFrom: {self.from_value};tag={self.tag}\r\nTo: {self.to}\r\n"
            f"Call-ID: {self.call_id}\r\n"
            f"CSeq: {self.sequence} {method}\r\nContact: <sip:peer@127.0.0.1:{self.peer.port}>\r\n{headers}{kind}"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        )

    def invite(self, body: str, headers: str = "") -> None:
        self.invite_text = self.request("INVITE", body=body, headers=headers)
        self.peer.send(self.invite_text)

    async def final(self) -> str:
        """The final answer to the INVITE; a refusal is acknowledged at once."""
        answer = await self.peer.receive("2xx", "3xx", "4xx", "5xx", "6xx")
        self.follow(answer)
        if status_of(answer) >= 300:
            self.peer.send(self.request("ACK", same_transaction=True))
        return answer

    def follow(self, answer: str) -> None:
        self.to = header(answer, "To")
        contact = re.search(r"<([^>]+)>", header(answer, "Contact"))
        self.target = contact.group(1) if contact and status_of(answer) < 300 else self.target
        audio = re.search(r"^m=audio (\d+)", answer, re.M)
        self.media_port = int(audio.group(1)) if audio else self.media_port

    def ack(self, body: str = "") -> None:
        self.peer.send(self.request("ACK", body=body))

    async def connect_with(self, rig: Rig, body: str, headers: str = "", *, echo: bool = False) -> Listener:
        """INVITE, answered by the rig, ACK. The rig's listener of the leg."""
        self.invite(body, headers)
        listener = await rig.answered(echo=echo)
        answer = await self.final()
        assert status_of(answer) == 200, answer
        self.ack()
        return listener

    async def transact(self, method: str, *, body: str = "", headers: str = "") -> str:
        """One request inside the dialog and its final answer; a re-INVITE is acknowledged. What is sent again meanwhile
        for an earlier request (RFC 3261 section 13.3.1.4) is passed over."""
        self.peer.send(self.request(method, body=body, headers=headers))
        answer = ""
        while header(answer, "CSeq") != f"{self.sequence} {method}" or header(answer, "Call-ID") != self.call_id:
            answer = await self.peer.receive("2xx", "3xx", "4xx", "5xx", "6xx")
        if method == "INVITE":
            self.peer.send(self.request("ACK", same_transaction=status_of(answer) >= 300))
        return answer
