"""A real Kamailio in a folder of its own, cells made by hand behind it, callers made by hand before it.

`Cell` answers as it is told and keeps what it received; `Caller` is one socket (UDP, TCP or TLS, IPv4 or IPv6) that
speaks SIP; `Dialog` one call on it, with the route set of its answer. All of them: loop thread.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import re
import ssl
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from sipserver.edge.cells import CellAddress
from sipserver.edge.edge import Edge
from sipserver.edge.settings import EdgeSettings, FloodSettings, Listen
from sipserver.trunks.settings import TrunkSettings
from tests.fakes.sip_peer import body_of, header, sdp, status_of
from tests.harness.server import free_sip_port

ANSWER_S = 5.0
SILENCE_S = 0.4
LAB = TrunkSettings(name="lab", sources=("127.0.0.1/32", "::1/128"))


def headers(text: str, name: str) -> list[str]:
    """All fields of that name, those with several values split."""
    found = re.findall(rf"^{re.escape(name)}[ \t]*:[ \t]*(.*?)[ \t]*\r?$", text, re.I | re.M)
    return [part.strip() for field in found for part in re.split(r",(?=\s*<)", field)]


def edge_settings(folder: Path, **changes: Any) -> EdgeSettings:
    """Of an edge on free ports of 127.0.0.1, UDP and TCP on the same one, with a short memory for floods."""
    port = inside_port = free_sip_port()
    while inside_port == port:
        inside_port = free_sip_port()
    listen = (
        Listen(transport="udp", host="127.0.0.1", port=port),
        Listen(transport="tcp", host="127.0.0.1", port=port),
    )
    settings: dict[str, Any] = {
        "folder": folder,
        "listen": listen,
        "inside_port": inside_port,
        "probe_s": 1,
        "memory_mb": 64,
        "flood": FloodSettings(requests=10_000),
    }
    return EdgeSettings(**{**settings, **changes})


@asynccontextmanager
async def running(
    folder: Path,
    cells: Sequence[Cell] = (),
    trunks: Sequence[TrunkSettings] = (LAB,),
    passwords: dict[str, str] | None = None,
    **changes: Any,
) -> AsyncIterator[Edge]:
    """An edge that knows the cells, stopped at the end whoever started it anew."""
    edge = Edge(edge_settings(folder, **changes), trunks, ("G722", "PCMA", "PCMU"), passwords or {})
    try:
        await edge.start([cell.address for cell in cells])
        yield edge
    finally:
        await edge.stop()


def port_of(edge: Edge, number: int = 0) -> int:
    return edge.settings.listen[number].port


class Cell(asyncio.DatagramProtocol):
    """mode: `answer` (200 until BYE), `room` (the same, but 486 when there is no place), `ring` (180, 487 when
    cancelled), `silent` (not a word to an INVITE), `deaf` (to OPTIONS neither), or a status such as `486 Busy Here`;
    with `refusal` it says that it is the cell's own.
    """

    def __init__(self, mode: str = "answer", refusal: str = "", calls: int = 4) -> None:
        self.mode, self.refusal, self.calls = mode, refusal, calls
        self.received: list[str] = []
        self.arrived = asyncio.Event()
        self.now = self.most = 0
        self.run = ""
        self._invites: dict[str, str] = {}
        self._answered: set[str] = set()
        self._transport: asyncio.DatagramTransport | None = None
        self.port = 0

    @property
    def address(self) -> CellAddress:
        return CellAddress("127.0.0.1", self.port, self.calls, run=self.run)

    async def open(self, port: int = 0) -> Cell:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", port))
        self.port = self._transport.get_extra_info("sockname")[1]
        return self

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def of(self, method: str) -> list[str]:
        """What it received of that method."""
        return [text for text in self.received if text.startswith(f"{method} ")]

    async def wait_for(self, method: str, count: int = 1) -> str:
        async with asyncio.timeout(ANSWER_S):
            while len(self.of(method)) < count:
                self.arrived.clear()
                await self.arrived.wait()
        return self.of(method)[count - 1]

    def datagram_received(self, payload: bytes, peer: tuple[str | Any, int]) -> None:
        text = payload.decode()
        method = text.partition(" ")[0]
        if not text.strip():
            return
        call_id = header(text, "Call-ID")
        if method == "OPTIONS" and "edge@" in header(text, "From"):
            if self.mode != "deaf":
                self.answer(text, "200 OK", peer)
            return
        self.received.append(text)
        self.arrived.set()
        match method:
            case "INVITE":
                self._invited(text, call_id, peer)
            case "CANCEL":
                self.answer(text, "200 OK", peer)
                self.answer(self._invites.pop(call_id), "487 Request Terminated", peer)
            case "BYE":
                self.now -= call_id in self._answered
                self._answered.discard(call_id)
                self.answer(text, "200 OK", peer)
            case "ACK" | "SIP/2.0":
                pass
            case _:
                self.answer(text, "200 OK", peer)

    def _invited(self, text: str, call_id: str, peer: tuple[str | Any, int]) -> None:
        again = call_id in self._answered
        match self.mode:
            case "silent" | "deaf":
                pass
            case "room" if self.now >= self.calls and not again:
                self.answer(text, "486 Busy Here", peer)
            case "answer" | "room":
                if not again:
                    self._answered.add(call_id)
                    self.now += 1
                    self.most = max(self.most, self.now)
                self.answer(text, "200 OK", peer, body=sdp(9, "0"))
            case "ring":
                self._invites[call_id] = text
                self.answer(text, "180 Ringing", peer)
            case status:
                self.answer(text, status, peer)

    def answer(self, request: str, status: str, peer: tuple[str | Any, int], *, body: str = "") -> None:
        """As a PJSIP cell would: with its name, its address and, for its own refusals, why."""
        if self._transport is None:
            return
        kept = [line for line in request.split("\r\n") if line.lower().startswith(("via:", "record-route:"))]
        to = header(request, "To")
        lines = [
            f"SIP/2.0 {status}",
            *kept,
            f"From: {header(request, 'From')}",
            f"To: {to if 'tag=' in to else f'{to};tag=cell{self.port}'}",
            f"Call-ID: {header(request, 'Call-ID')}",
            f"CSeq: {header(request, 'CSeq')}",
            f"Contact: <sip:cell@127.0.0.1:{self.port}>",
            "Server: inside-server",
            "X-Sipserver-Secret: inside",
        ]
        if self.refusal and not status.startswith("2"):
            lines.append(f"X-Sipserver-Refusal: {self.refusal}")
        if body:
            lines.append("Content-Type: application/sdp")
        self._transport.sendto("\r\n".join([*lines, f"Content-Length: {len(body)}", "", body]).encode(), peer)

    def send(self, text: str, port: int) -> None:
        assert self._transport is not None
        self._transport.sendto(text.encode(), ("127.0.0.1", port))

    def request_back(self, method: str, invite: str, *, contact: str = "") -> tuple[str, str]:
        """A request within the dialog of that INVITE, from the cell's side: Request-URI and text."""
        uri = re.search(r"<([^>]+)>", contact or header(invite, "Contact"))
        assert uri is not None
        routes = "".join(f"Route: {route}\r\n" for route in headers(invite, "Record-Route"))
        return uri[1], (
            f"{method} {uri[1]} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{self.port};branch=z9hG4bK{uuid.uuid4().hex}\r\n"
            f"Max-Forwards: 70\r\n{routes}From: {header(invite, 'To')};tag=cell{self.port}\r\n"
            f"To: {header(invite, 'From')}\r\nCall-ID: {header(invite, 'Call-ID')}\r\nCSeq: 1 {method}\r\n"
            f"User-Agent: inside-server\r\nContact: <sip:cell@127.0.0.1:{self.port}>\r\nContent-Length: 0\r\n\r\n"
        )


@asynccontextmanager
async def cells(*made: Cell) -> AsyncIterator[list[Cell]]:
    try:
        yield [await cell.open() for cell in made]
    finally:
        for cell in made:
            cell.close()


class Caller:
    """One socket of a peer outside. transport: udp, tcp or tls."""

    def __init__(self, transport: str, host: str, server_port: int) -> None:
        self.transport, self.host, self.server_port = transport, host, server_port
        self.port = 0
        self._waiting: asyncio.Queue[str] = asyncio.Queue()
        self._udp: asyncio.DatagramTransport | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reader_task: asyncio.Task[None] | None = None
        self.backlog: list[str] = []

    @classmethod
    @asynccontextmanager
    async def open(
        cls, edge: Edge, number: int = 0, *, transport: str = "udp", tls: ssl.SSLContext | None = None
    ) -> AsyncIterator[Caller]:
        """number: of the edge's sockets."""
        listen = edge.settings.listen[number]
        caller = cls(transport, listen.host, listen.port)
        loop = asyncio.get_running_loop()
        if transport == "udp":
            local = (listen.host, 0)
            caller._udp, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(caller._waiting), local, (listen.host, listen.port)
            )
            caller.port = caller._udp.get_extra_info("sockname")[1]
        else:
            reader, caller._writer = await asyncio.open_connection(
                listen.host, listen.port, ssl=tls, server_hostname="localhost" if tls else None
            )
            caller.port = caller._writer.get_extra_info("sockname")[1]
            caller._reader_task = asyncio.create_task(_stream(reader, caller._waiting))
        try:
            yield caller
        finally:
            if caller._udp is not None:
                caller._udp.close()
            if caller._writer is not None and caller._reader_task is not None:
                caller._reader_task.cancel()
                await asyncio.gather(caller._reader_task, return_exceptions=True)
                caller._writer.close()
                with suppress(OSError, ssl.SSLError):
                    await caller._writer.wait_closed()

    @property
    def own(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def server(self) -> str:
        return f"[{self.host}]:{self.server_port}" if ":" in self.host else f"{self.host}:{self.server_port}"

    def send(self, text: str | bytes) -> None:
        payload = text if isinstance(text, bytes) else text.encode()
        if self._udp is not None:
            self._udp.sendto(payload)
        elif self._writer is not None:
            self._writer.write(payload)

    async def receive(self, *wanted: str | int, timeout_s: float = ANSWER_S) -> str:
        """The next message of these methods or statuses (`BYE`, 200); anything but 1xx where none is named."""

        def fits(text: str) -> bool:
            status = status_of(text)
            return (status or text.partition(" ")[0]) in wanted if wanted else not 100 <= status < 200

        for index, text in enumerate(self.backlog):
            if fits(text):
                return self.backlog.pop(index)
        async with asyncio.timeout(timeout_s):
            while True:
                text = await self._waiting.get()
                if fits(text):
                    return text
                self.backlog.append(text)

    async def silence(self, timeout_s: float = SILENCE_S) -> bool:
        """Nothing arrives."""
        try:
            await self.receive(timeout_s=timeout_s)
        except TimeoutError:
            return not self.backlog
        return False

    def dialog(self, user: str = "echo", **facts: Any) -> Dialog:
        return Dialog(self, user, **facts)

    async def ask(self, method: str, more: str = "", body: str = "") -> str:
        """One request out of any dialog, and its final answer."""
        dialog = self.dialog()
        self.send(dialog.request(method, more=more, body=body))
        answer = await self.receive()
        if method == "INVITE" and status_of(answer) >= 300:
            self.send(dialog.request("ACK", again=True, answer=answer))
        return answer


class Dialog:
    """A call that the caller begins."""

    def __init__(self, caller: Caller, user: str, *, contact: str = "") -> None:
        self.caller = caller
        self.call_id, self.tag = f"{uuid.uuid4().hex}@peer", uuid.uuid4().hex[:8]
        self.target = f"sip:{user}@{caller.server}"
        self.to = f"<{self.target}>"
        self.routes: list[str] = []
        self.contact = contact or f"<sip:peer@{caller.own};transport={caller.transport}>"
        self._numbers = itertools.count(1)
        self.number, self.branch = 0, ""

    def request(self, method: str, *, body: str = "", more: str = "", again: bool = False, answer: str = "") -> str:
        """again: of the same transaction (CANCEL, ACK of a refusal, a retransmission). answer: whose To to take."""
        if not again:
            self.branch = f"z9hG4bK{uuid.uuid4().hex}"
        if not again and method != "ACK":
            self.number = next(self._numbers)
        routes = "".join(f"Route: {route}\r\n" for route in self.routes)
        kind = "Content-Type: application/sdp\r\n" if body and "Content-Type" not in more else ""
        return (
            f"{method} {self.target} SIP/2.0\r\n"
            f"Via: SIP/2.0/{self.caller.transport.upper()} {self.caller.own};rport;branch={self.branch}\r\n"
            f"Max-Forwards: 70\r\n{routes}From: <sip:peer@{self.caller.own}>;tag={self.tag}\r\n"
            f"To: {header(answer, 'To') if answer else self.to}\r\nCall-ID: {self.call_id}\r\n"
            f"CSeq: {self.number} {method}\r\nContact: {self.contact}\r\n{more}{kind}"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        )

    async def invite(self, body: str | None = None, more: str = "") -> str:
        """The final answer, acknowledged. The route set and the far end's address are taken from a 2xx."""
        self.caller.send(self.request("INVITE", body=sdp(9, "0 101") if body is None else body, more=more))
        return await self.finish()

    async def finish(self) -> str:
        answer = await self._answer("INVITE")
        if status_of(answer) >= 300:
            self.caller.send(self.request("ACK", again=True, answer=answer))
            return answer
        self.take(answer)
        self.caller.send(self.request("ACK"))
        return answer

    def take(self, answer: str) -> None:
        self.to = header(answer, "To")
        contact = re.search(r"<([^>]+)>", header(answer, "Contact"))
        assert contact is not None
        self.target = contact[1]
        self.routes = headers(answer, "Record-Route")[::-1]

    async def bye(self) -> str:
        self.caller.send(self.request("BYE"))
        return await self._answer("BYE")

    async def _answer(self, method: str) -> str:
        """Final, to this request of this call; what the edge still sends again for others is passed over."""
        while True:
            text = await self.caller.receive()
            if status_of(text) and header(text, "Call-ID") == self.call_id and header(text, "CSeq").endswith(method):
                return text


def authorization(challenge: str, user: str, password: str, uri: str, *, nonce: str = "", count: int = 1) -> str:
    """The header that answers a 407 (RFC 7616, 3.4). nonce: another one than the challenge's."""
    fields = dict(re.findall(r'(\w+)="?([^",]+)"?', header(challenge, "Proxy-Authenticate").partition(" ")[2]))
    algorithm = fields.get("algorithm", "MD5")

    def digest(text: str) -> str:
        return hashlib.new("sha256" if algorithm == "SHA-256" else "md5", text.encode()).hexdigest()

    nonce = nonce or fields["nonce"]
    ha1, ha2 = digest(f"{user}:{fields['realm']}:{password}"), digest(f"INVITE:{uri}")
    response = digest(f"{ha1}:{nonce}:{count:08x}:abc:auth:{ha2}")
    return (
        f'Proxy-Authorization: Digest username="{user}", realm="{fields["realm"]}", nonce="{nonce}", uri="{uri}", '
        f'response="{response}", algorithm={algorithm}, cnonce="abc", qop=auth, nc={count:08x}\r\n'
    )


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, waiting: asyncio.Queue[str]) -> None:
        self._waiting = waiting

    def datagram_received(self, payload: bytes, _peer: Any) -> None:
        self._waiting.put_nowait(payload.decode(errors="replace"))

    def error_received(self, _error: Exception) -> None:
        """Kamailio is away for a moment."""


async def _stream(reader: asyncio.StreamReader, waiting: asyncio.Queue[str]) -> None:
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            size = int(header(head, "Content-Length") or 0)
            waiting.put_nowait(head + (await reader.readexactly(size)).decode())


__all__ = [
    "LAB", "Caller", "Cell", "Dialog", "authorization", "body_of", "cells", "edge_settings", "header", "headers",
    "port_of", "running", "sdp", "status_of",
]  # fmt: skip
