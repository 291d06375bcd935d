"""Who may open a WebSocket, how many there are, and what became of them: one place for all kinds.

Owns the checks before the upgrade (origin, limits) and the connections that are open. Refuses to know what they are
for; tokens are claimed by those who serve a path, with `token_of` and `tokens`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp
from aiohttp import hdrs, web

from sipserver.errors import CapacityError, Draining, NotAllowed, SipServerError, TooMany
from sipserver.gate.buckets import Buckets
from sipserver.gate.close_codes import Close
from sipserver.gate.connection import Connection, Takes
from sipserver.gate.requests import address_of, offered_protocols, public_url, token_of, token_protocol
from sipserver.gate.server_socket import ServerSocket
from sipserver.gate.settings import GateSettings
from sipserver.gate.tokens import Tokens
from sipserver.log import logger


@dataclass(frozen=True, slots=True)
class GateFacts:
    """Numbers since the start, but for `open`, which is now. By kind: open, opened, dropped (messages that slow peers
    did not get). refused: before the upgrade, by why. cut: ended by us for a fault of the peer, by why. messages: by
    direction.
    """

    open: Mapping[str, int]
    opened: Mapping[str, int]
    refused: Mapping[str, int]
    cut: Mapping[str, int]
    messages: Mapping[str, int]
    dropped: Mapping[str, int]


class Gate:
    """Loop thread. One a process. tokens: what lets people in, for those who serve a path. clock: monotonic seconds."""

    def __init__(self, settings: GateSettings, tokens: Tokens, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings, self.tokens = settings, tokens
        self._log = logger("gate")
        self._connections: set[Connection] = set()
        self._tenants: Counter[str] = Counter()
        self._addresses: Counter[str] = Counter()
        self._places = 0
        self._rates = Buckets(settings.opens_per_s, max(1.0, settings.opens_per_s), clock)
        self._opened: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._cut: Counter[str] = Counter()
        self._messages: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._shut = False

    # --- clients that come to us --------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def open(
        self,
        request: web.Request,
        *,
        kind: str,
        tenant: str = "",
        takes: Takes = "any",
        protocols: Sequence[str] = (),
    ) -> AsyncIterator[Connection]:
        """Check, upgrade, and close when the block ends; the handler returns `connection.response` after it.

        kind: for metrics and logs; few values. tenant: whose limit counts. takes: the kind of messages. protocols:
        sub-protocols that we speak, the best one first.

        Before the upgrade raises what becomes an HTTP answer: NotAllowed (403, the origin), TooMany (429, of this
        address or tenant), CapacityError and Draining (503). What the block raises is logged and ends the connection
        with a code of its own, since it cannot become an answer any more: NotAllowed 4403, what is the peer's fault
        4400, all else 1011.
        """
        address = address_of(request)
        self._check(request, address, tenant)
        with self._place(address, tenant):
            socket = ServerSocket(message_bytes=self.settings.message_bytes, protocols=_agreed(request, protocols))
            await socket.prepare(request)
            connection = Connection(socket, self.settings, kind=kind, peer=address, tenant=tenant, takes=takes)
            async with self._watched(connection):
                yield connection

    # --- servers that we call -----------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def dial(
        self,
        session: aiohttp.ClientSession,
        url: str,
        *,
        kind: str,
        tenant: str = "",
        takes: Takes = "any",
        headers: Mapping[str, str] | None = None,
        protocols: Sequence[str] = (),
    ) -> AsyncIterator[Connection]:
        """A WebSocket to somebody's server: as guarded as those that come to us, without their limits. Closed when the
        block ends. Raises aiohttp.ClientError, OSError, TimeoutError (the session's) before the block; what the block
        raises goes on.
        """
        socket = await session.ws_connect(
            url,
            autoping=False,
            compress=0,
            max_msg_size=self.settings.message_bytes + 1,
            headers=headers,
            protocols=protocols,
        )
        connection = Connection(
            socket, self.settings, kind=kind, peer=_without_secrets(url), tenant=tenant, takes=takes
        )
        self._enter(connection)
        try:
            yield connection
        finally:
            await self._leave(connection)

    # --- all of them --------------------------------------------------------------------------------------------------

    @property
    def connections(self) -> Sequence[Connection]:
        return tuple(self._connections)

    def public_url(self, request: web.Request, *, websocket: bool = False) -> str:
        """How others reach us, without a path: `https://voice.example.com`, or `wss://...` for a WebSocket."""
        return public_url(request, self.settings, websocket=websocket)

    def token_of(self, request: web.Request) -> str:
        """The token that came with a request; empty: none. `tokens.claim` says what it is good for."""
        return token_of(request)

    def is_ours(self, request: web.Request) -> bool:
        """Whether the page that asks is one of our own or of `gate.origins`. Browsers name it (Origin, RFC 6454) and
        leave the decision to us; others send no Origin, and may.
        """
        origin = request.headers.get(hdrs.ORIGIN, "").lower().rstrip("/")
        if not origin or "*" in self.settings.origins:
            return True
        own = {request.host.lower(), urlsplit(self.settings.public_url).netloc.lower()} - {""}
        return urlsplit(origin).netloc in own or origin in {each.lower().rstrip("/") for each in self.settings.origins}

    async def close_all(self, code: int = Close.GOING_AWAY, reason: str = "") -> None:
        """End them all and let none in any more. Returns when they are closed, CLOSE_S at most."""
        self._shut = True
        async with asyncio.TaskGroup() as tasks:
            for connection in self._connections:
                tasks.create_task(connection.close(code, reason), name="close websockets")

    def facts(self) -> GateFacts:
        messages, dropped = self._messages.copy(), self._dropped.copy()
        for connection in self._connections:
            _add(connection, messages, dropped)
        return GateFacts(
            open=Counter(connection.kind for connection in self._connections),
            opened=dict(self._opened),
            refused=dict(self._refused),
            cut=dict(self._cut),
            messages=messages,
            dropped=dropped,
        )

    # --- before the upgrade -------------------------------------------------------------------------------------------

    def _check(self, request: web.Request, address: str, tenant: str) -> None:
        settings = self.settings
        if self._shut:
            raise self._no("draining", Draining("the server is shutting down"))
        if not self.is_ours(request):
            raise self._no("origin", NotAllowed("pages of this origin may not open WebSockets here"))
        if not self._rates.take(address):
            raise self._no("rate", TooMany("too many new WebSockets from this address"))
        if self._places >= settings.connections:
            raise self._no("connections", CapacityError("no more WebSockets: the server is full"))
        if self._addresses[address] >= settings.per_address:
            raise self._no("per_address", TooMany("too many WebSockets from this address"))
        if tenant and self._tenants[tenant] >= settings.per_tenant:
            raise self._no("per_tenant", TooMany("too many WebSockets of this tenant"))

    def _no(self, why: str, refusal: SipServerError) -> SipServerError:
        self._refused[why] += 1
        return refusal

    @contextlib.contextmanager
    def _place(self, address: str, tenant: str) -> Iterator[None]:
        self._places += 1
        self._addresses[address] += 1
        self._tenants[tenant] += 1
        try:
            yield
        finally:
            self._places -= 1
            _give(self._addresses, address)
            _give(self._tenants, tenant)

    # --- while it is open ---------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _watched(self, connection: Connection) -> AsyncIterator[None]:
        self._enter(connection)
        try:
            yield
        except SipServerError as problem:
            self._log.info("WebSocket refused", kind=connection.kind, peer=connection.peer, error=str(problem))
            connection.close_soon(_code_of(problem), str(problem))
        except Exception:
            self._log.exception("a WebSocket broke", kind=connection.kind, peer=connection.peer)
            connection.close_soon(Close.OUR_FAULT)
        finally:
            await self._leave(connection)

    def _enter(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._opened[connection.kind] += 1
        if self._shut:
            connection.close_soon(Close.GOING_AWAY)

    async def _leave(self, connection: Connection) -> None:
        try:
            await connection.close()
        finally:
            self._connections.discard(connection)
            _add(connection, self._messages, self._dropped)
            if why := _CUT.get(connection.code) if not connection.by_peer else None:
                self._cut[why] += 1
                self._log.warning(
                    "WebSocket cut", kind=connection.kind, peer=connection.peer, why=why, dropped=connection.dropped
                )


_CUT: Mapping[int, str] = {
    Close.BROKEN_PROTOCOL: "protocol",
    Close.WRONG_TYPE: "type",
    Close.NOT_UTF8: "utf8",
    Close.TOO_MANY_MESSAGES: "rate",
    Close.TOO_LONG: "length",
    Close.OUR_FAULT: "fault",
    Close.BAD_MESSAGE: "message",
    Close.KEY_OVER: "key",
    Close.NOT_ALLOWED: "token",
    Close.SILENT: "silent",
    Close.TOO_SLOW: "slow",
}
"""Ends that are somebody's fault, as metrics call them."""


def _agreed(request: web.Request, spoken: Sequence[str]) -> tuple[str, ...]:
    """The one sub-protocol to answer with, if any. A browser that offered some wants to hear one of them; the one with
    its token goes back only if it offered nothing else that we speak.
    """
    offered = offered_protocols(request)
    if best := next((protocol for protocol in spoken if protocol in offered), token_protocol(request)):
        return (best,)
    return ()


def _without_secrets(url: str) -> str:
    """An address for logs: credentials and parameters may be keys or numbers."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _code_of(problem: SipServerError) -> Close:
    match problem.http_code:
        case 403:
            return Close.NOT_ALLOWED
        case 404:
            return Close.NOT_FOUND
        case 429 | 503:
            return Close.TRY_LATER
        case code if code < 500:
            return Close.BAD_MESSAGE
        case _:
            return Close.OUR_FAULT


def _add(connection: Connection, messages: Counter[str], dropped: Counter[str]) -> None:
    messages["received"] += connection.received
    messages["sent"] += connection.sent
    dropped[connection.kind] += connection.dropped


def _give(places: Counter[str], key: str) -> None:
    places[key] -= 1
    if places[key] <= 0:
        del places[key]
