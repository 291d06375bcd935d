"""Requests for a call that another gateway of this machine has: passed on to it whole, and its answer back.

All gateways share a port, so what belongs to a call that lives (a carrier's word about it, a WebSocket that comes back,
an ICE restart) may meet any of them. Addresses of such things have the `home` of the call: `@` and 12 hex digits. Owns
the homes' Unix sockets. Refuses to know what is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote

import aiohttp
from aiohttp import WSCloseCode, WSMsgType, hdrs, web
from aiohttp.typedefs import Handler, Middleware
from multidict import CIMultiDict
from yarl import URL

from sipserver.gate.requests import address_of, offered_protocols, public_url
from sipserver.gate.settings import GateSettings
from sipserver.log import logger

Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse

_HOME = re.compile(r"@[0-9a-f]{12}(?![0-9a-z])")
ANSWER_S = 15.0
"""How long another gateway may take for an answer: an ICE restart gathers addresses."""
_OURS = frozenset({
    "connection", "content-length", "host", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade",
    "sec-websocket-accept", "sec-websocket-extensions", "sec-websocket-key", "sec-websocket-protocol",
    "sec-websocket-version", "x-forwarded-for", "x-forwarded-proto",
})  # fmt: skip
"""Headers that belong to one hop, or that we say ourselves."""


class Relay:
    """One a gateway; loop thread. `open` for as long as requests may come. run: of the process."""

    def __init__(self, runtime: Path, run: str, gate: GateSettings) -> None:
        self.home = f"@{run[:12]}"
        self._runtime, self._gate = runtime, gate
        self._log = logger("relay")

    @property
    def socket(self) -> Path:
        """Where this gateway answers the others."""
        return self._socket_of(self.home)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            self.socket.unlink(missing_ok=True)

    def middleware(self) -> Middleware:
        """Passes on what is another gateway's; all else goes its way, and so does what a gateway would have that is no
        longer there.
        """

        @web.middleware
        async def passes_on(request: web.Request, handler: Handler) -> web.StreamResponse:
            socket = self._whose(request)
            if socket is None:
                return await handler(request)
            connector = aiohttp.UnixConnector(str(socket))
            async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
                try:
                    if request.headers.get(hdrs.UPGRADE, "").lower() == "websocket":
                        return await self._socket(session, request)
                    return await self._answer(session, request)
                except (aiohttp.ClientConnectionError, TimeoutError) as problem:
                    self._log.warning("another gateway does not answer", path=request.path, error=str(problem))
            return await handler(request)

        return passes_on

    # --- inside -------------------------------------------------------------------------------------------------------

    def _socket_of(self, home: str) -> Path:
        return self._runtime / f"http-{home[1:]}.sock"

    def _whose(self, request: web.Request) -> Path | None:
        """The socket of another gateway that lives here; None: the request is ours."""
        found = _HOME.search(unquote(request.raw_path))
        if found is None or found[0] == self.home:
            return None
        socket = self._socket_of(found[0])
        return socket if socket.exists() else None

    def _headers(self, request: web.Request) -> CIMultiDict[str]:
        """What the client said, and who it is: the other gateway believes its own machine."""
        headers = CIMultiDict((name, value) for name, value in request.headers.items() if name.lower() not in _OURS)
        headers[hdrs.HOST] = request.host
        headers[hdrs.X_FORWARDED_FOR] = address_of(request)
        headers[hdrs.X_FORWARDED_PROTO] = public_url(request, self._gate).partition("://")[0]
        return headers

    async def _answer(self, session: aiohttp.ClientSession, request: web.Request) -> web.StreamResponse:
        async with session.request(
            request.method,
            _url(request),
            headers=self._headers(request),
            data=await request.read(),
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=ANSWER_S),
        ) as answer:
            headers = CIMultiDict((name, value) for name, value in answer.headers.items() if name.lower() not in _OURS)
            return web.Response(status=answer.status, body=await answer.read(), headers=headers)

    async def _socket(self, session: aiohttp.ClientSession, request: web.Request) -> web.StreamResponse:
        try:
            far = await session.ws_connect(
                _url(request),
                autoping=False,
                compress=0,
                max_msg_size=self._gate.message_bytes + 1,
                headers=self._headers(request),
                protocols=offered_protocols(request),
            )
        except aiohttp.WSServerHandshakeError as refusal:
            return web.Response(status=refusal.status, text=refusal.message)
        near = web.WebSocketResponse(
            autoping=False,
            compress=False,
            max_msg_size=self._gate.message_bytes + 1,
            protocols=() if far.protocol is None else (far.protocol,),
        )
        try:
            await near.prepare(request)
            ways = [asyncio.create_task(_pass(*way), name="relay") for way in ((near, far), (far, near))]
            try:
                await asyncio.gather(*ways)
            finally:
                for each in ways:
                    each.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            await far.close(code=WSCloseCode.GOING_AWAY)
        return near


async def _pass(source: Socket, sink: Socket) -> None:
    """All messages, until one side closes; then the other one is closed in the same way. A peer that reads slowly is
    waited for: nothing is kept here.
    """
    code, reason = WSCloseCode.GOING_AWAY.value, b"the connection was lost"
    with contextlib.suppress(ConnectionError):
        while True:
            message = await source.receive()
            match message.type:
                case WSMsgType.TEXT:
                    await sink.send_str(message.data)
                case WSMsgType.BINARY:
                    await sink.send_bytes(message.data)
                case WSMsgType.PING:
                    await sink.ping(message.data)
                case WSMsgType.PONG:
                    await sink.pong(message.data)
                case WSMsgType.CLOSE:
                    code, reason = int(message.data), str(message.extra or "").encode()
                    break
                case _:
                    break
    await sink.close(code=code, message=reason)


def _url(request: web.Request) -> URL:
    return URL(f"http://gateway{request.raw_path}", encoded=True)
