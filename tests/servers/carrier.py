"""The peer outside that an edge calls, and the cell that calls through it; both made by hand, every message kept.

`Carrier` is a UDP, TCP or TLS server (IPv4 or IPv6) that does with a request what it is told; `Placer` is the socket of
a cell that sends requests by way of the edge (Route, X-Sipserver-Trunk). Loop thread.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from sipserver.edge import outside
from sipserver.edge.cells import CellAddress
from sipserver.edge.edge import Edge
from tests.fakes.sip_peer import header, sdp, status_of
from tests.servers.kamailio import ANSWER_S, Caller, Dialog, headers

INSIDE = "127.0.0.9"
"""Where cells and the inner side of the edge are: an address that the outside must never see."""
Behave = Callable[["Carrier", str], None]


def take(carrier: Carrier, request: str) -> None:
    """Ring and answer a call; say yes to everything else."""
    if request.startswith("INVITE ") and "tag=" not in header(request, "To"):
        carrier.answer(request, "180 Ringing")
    carrier.answer(request, "200 OK", body=sdp(9, "0 101") if request.startswith("INVITE ") else "")


class Carrier:
    """behave: called with each request but ACK. contact: that it names; empty: its address."""

    def __init__(
        self, behave: Behave = take, *, transport: str = "udp", host: str = "127.0.0.1", contact: str = ""
    ) -> None:
        self.behave, self.transport, self.host = behave, transport, host
        self._contact = contact
        self.port = 0
        self.received: list[str] = []
        self.answered: list[str] = []
        self._news = asyncio.Event()
        self._send: Callable[[str], None] = lambda _text: None
        self._udp: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Carrier]:
        loop = asyncio.get_running_loop()
        if self.transport == "udp":
            self._udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), (self.host, 0))
            self.port = self._udp.get_extra_info("sockname")[1]
        else:
            self._server = await asyncio.start_server(self._serve, self.host, 0, ssl=tls)
            self.port = self._server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            if self._udp is not None:
                self._udp.close()
            if self._server is not None:
                self._server.close()
                for writer in self._writers:
                    writer.close()
                    with suppress(OSError, ssl.SSLError):
                        await writer.wait_closed()
                await self._server.wait_closed()

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def contact(self) -> str:
        return self._contact or f"<sip:carrier@{self.address};transport={self.transport}>"

    def of(self, method: str) -> list[str]:
        return [text for text in self.received if text.startswith(f"{method} ")]

    async def wait_for(self, method: str, count: int = 1, *, timeout_s: float = ANSWER_S) -> str:
        """The message of that method (or `SIP/2.0`) with this number."""
        async with asyncio.timeout(timeout_s):
            while len(self.of(method)) < count:
                self._news.clear()
                await self._news.wait()
        return self.of(method)[count - 1]

    def answer(self, request: str, status: str, *, body: str = "", more: str = "", tag: str = "carrier") -> None:
        kept = "".join(
            f"{line}\r\n" for line in request.split("\r\n") if line.lower().startswith(("via:", "record-route:"))
        )
        to = header(request, "To")
        tagged = to if "tag=" in to else f"{to};tag={tag}"
        kind = "Content-Type: application/sdp\r\n" if body else ""
        # `Contact` of a registration is the one that was registered.
        contact = header(request, "Contact") if request.startswith("REGISTER ") else self.contact
        self._send(
            f"SIP/2.0 {status}\r\n{kept}From: {header(request, 'From')}\r\nTo: {tagged}\r\n"
            f"Call-ID: {header(request, 'Call-ID')}\r\nCSeq: {header(request, 'CSeq')}\r\nContact: {contact}\r\n"
            f"X-Sipserver-Refusal: forged\r\n{more}{kind}Content-Length: {len(body)}\r\n\r\n{body}"
        )

    def request(self, method: str, invite: str, *, more: str = "", body: str = "", tag: str = "carrier") -> str:
        """A request within the dialog of that INVITE, as its callee. What answers a 200 is an ACK: use the same."""
        uri = re.search(r"<([^>]+)>", header(invite, "Contact"))
        assert uri is not None
        routes = "".join(f"Route: {route}\r\n" for route in headers(invite, "Record-Route"))
        kind = "Content-Type: application/sdp\r\n" if body else ""
        return (
            f"{method} {uri[1]} SIP/2.0\r\nVia: SIP/2.0/{self.transport.upper()} {self.address};rport;"
            f"branch=z9hG4bK{uuid.uuid4().hex}\r\nMax-Forwards: 70\r\n{routes}"
            f"From: {header(invite, 'To')};tag={tag}\r\nTo: {header(invite, 'From')}\r\n"
            f"Call-ID: {header(invite, 'Call-ID')}\r\nCSeq: 7 {method}\r\nContact: {self.contact}\r\n"
            f"{more}{kind}Content-Length: {len(body)}\r\n\r\n{body}"
        )

    def send(self, text: str, port: int = 0) -> None:
        """Over the connection of the last request, or (UDP) to a port of our own host."""
        if port and self._udp is not None:
            self._udp.sendto(text.encode(), (self.host, port))
        else:
            self._send(text)

    def take(self, text: str, send: Callable[[str], None]) -> None:
        self._send = send
        self.received.append(text)
        self._news.set()
        if not text.startswith(("ACK ", "SIP/2.0 ")):
            self.behave(self, text)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                size = int(header(head, "Content-Length") or 0)
                self.take(head + (await reader.readexactly(size)).decode(), lambda text: writer.write(text.encode()))


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, payload: bytes, peer: Any) -> None:
        self._carrier.take(payload.decode(), lambda text: self._transport.sendto(text.encode(), peer))


class Placer(Caller):
    """A cell's socket. It answers the edge's probes by itself; everything else comes as it is."""

    inside: tuple[str, int]

    def send(self, text: str | bytes) -> None:
        assert self._udp is not None
        self._udp.sendto(text if isinstance(text, bytes) else text.encode(), self.inside)

    @property
    def server(self) -> str:
        return f"{self.inside[0]}:{self.inside[1]}"

    def dialog(self, user: str = "+4930123456", **facts: Any) -> Placed:
        return Placed(self, user, **facts)


class Placed(Dialog):
    """A call of the cell. at: `host:port` of the Request-URI."""

    def __init__(self, placer: Placer, user: str, *, at: str, trunk: str = "carrier", contact: str = "") -> None:
        super().__init__(placer, user, contact=contact)
        self.target, self.to = f"sip:{user}@{at}", f"<sip:{user}@{at}>"
        self.trunk = trunk
        self.routes = [f"<sip:{placer.server};lr>"]

    def request(self, method: str, *, body: str = "", more: str = "", again: bool = False, answer: str = "") -> str:
        first = "tag=" not in self.to
        if first and self.trunk:
            more += f"X-Sipserver-Trunk: {self.trunk}\r\nX-Sipserver-Secret: inside\r\n"
        text = super().request(method, body=body, more=f"User-Agent: inside\r\n{more}", again=again, answer=answer)
        if method == "OPTIONS":  # PJSIP's are from the cell itself
            return text
        return text.replace(f"From: <sip:peer@{self.caller.own}>", "From: <sip:+4940765432@home.example>")


@asynccontextmanager
async def placer(edge: Edge, *, calls: int = 4, listed: bool = True, host: str = INSIDE) -> AsyncIterator[Placer]:
    """A cell of that edge."""
    loop = asyncio.get_running_loop()
    made = Placer("udp", host, edge.settings.inside_port)
    made.inside = (edge.settings.inside, edge.settings.inside_port)
    made._udp, _ = await loop.create_datagram_endpoint(lambda: _Probed(made), (host, 0))
    made.port = made._udp.get_extra_info("sockname")[1]
    assert outside.route(edge.settings) == f"<sip:{edge.settings.inside}:{edge.settings.inside_port};lr>"
    try:
        if listed:
            await edge.set_cells([CellAddress(host, made.port, calls)])
        yield made
    finally:
        made._udp.close()


class _Probed(asyncio.DatagramProtocol):
    def __init__(self, placer: Placer) -> None:
        self._placer = placer
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, payload: bytes, peer: Any) -> None:
        text = payload.decode()
        if text.startswith("OPTIONS ") and "edge@" in header(text, "From"):
            self._transport.sendto(reply(text).encode(), peer)
        else:
            self._placer._waiting.put_nowait(text)


def reply(request: str, status: str = "200 OK", *, more: str = "", body: str = "") -> str:
    """An answer within a dialog, or to something that needs none."""
    kept = "".join(
        f"{line}\r\n" for line in request.split("\r\n") if line.lower().startswith(("via:", "record-route:"))
    )
    kind = "Content-Type: application/sdp\r\n" if body else ""
    return (
        f"SIP/2.0 {status}\r\n{kept}From: {header(request, 'From')}\r\nTo: {header(request, 'To')}\r\n"
        f"Call-ID: {header(request, 'Call-ID')}\r\nCSeq: {header(request, 'CSeq')}\r\n{more}{kind}"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    )


__all__ = ["INSIDE", "Carrier", "Placed", "Placer", "placer", "reply", "status_of", "take"]
