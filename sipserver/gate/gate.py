"""Who may open a WebSocket here, how many of them there are, and that none of them is forgotten.

Owns the checks before the upgrade (origin, limits), the connections that live, their pings, and their end when the
server stops. Refuses to know what is said on them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from aiohttp import web

from sipserver.errors import CapacityError, NotAllowed
from sipserver.gate.close_codes import CloseCode
from sipserver.gate.connection import Connection
from sipserver.gate.settings import GateSettings
from sipserver.gate.tokens import Tokens
from sipserver.log import logger

_LOOK_S = 1.0
_ADDRESSES = 10_000
"""So many addresses are remembered for their pace; the one that has been quiet for longest is forgotten."""
_TOKEN_PROTOCOL = "token."  # noqa: S105 # nosec B105 - the prefix of a sub-protocol that carries a token


@dataclass(slots=True)
class GateFacts:
    """For metrics: totals, and what is open now. By kind of connection, or by reason."""

    open: Mapping[str, int]
    opened: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    received: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)


class Gate:
    """Loop thread. One for all WebSockets of a process."""

    def __init__(self, settings: GateSettings, tokens: Tokens) -> None:
        self.settings, self.tokens = settings, tokens
        self._open: set[Connection] = set()
        self._per_address: Counter[str] = Counter()
        self._per_tenant: Counter[str] = Counter()
        self._paces: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._facts = GateFacts({})
        self._watch: asyncio.Task[None] | None = None
        self._closed = False
        self._log = logger("gate")

    @contextlib.asynccontextmanager
    async def open(self, request: web.Request, *, kind: str, tenant: str = "") -> AsyncIterator[Connection]:
        """Upgrade a request to a WebSocket for the length of an `async with` block, which closes it.

        Raises NotAllowed (a web page that may not), CapacityError (a limit is reached), both before the upgrade. A
        request that is no WebSocket's is answered 400 by aiohttp.
        """
        address = client_address(request)
        self._admit(request, address, kind, tenant)
        offered = _protocols(request)
        chosen = tuple(name for name in offered if not name.startswith(_TOKEN_PROTOCOL)) or offered
        socket = web.WebSocketResponse(
            autoping=False,
            compress=False,
            max_msg_size=self.settings.message_bytes,
            protocols=chosen[:1],
            timeout=2.0,
        )
        await socket.prepare(request)
        connection = Connection(socket, self.settings, kind=kind, peer=address, tenant=tenant)
        self._began(connection)
        try:
            yield connection
        except Exception:
            connection.close_soon(CloseCode.OURS, "internal error")
            raise
        finally:
            connection.close_soon()
            self._ended(connection)
            await connection.ended()

    def token_of(self, request: web.Request) -> str:
        """The token that a request brings: `Authorization: Bearer`, `?token=`, or the sub-protocol `token.<token>`,
        which is how a web page can send one without showing it in an address. Empty: none.
        """
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and value.strip():
            return value.strip()
        for name in _protocols(request):
            if name.startswith(_TOKEN_PROTOCOL):
                return name.removeprefix(_TOKEN_PROTOCOL)
        return request.query.get("token", "")

    def public_url(self, request: web.Request, *, websocket: bool = False) -> str:
        """Scheme and host as the outside sees us: `gate.public_url`, else as the request asked; `ws(s)` for websocket.

        A proxy on this machine may say by X-Forwarded-Proto that it was asked by https.
        """
        url = self.settings.public_url
        if not url:
            forwarded = request.headers.get("X-Forwarded-Proto", "") if _is_local(request.remote or "") else ""
            scheme = forwarded if forwarded in ("http", "https") else request.scheme
            url = f"{scheme}://{request.host}"
        return "ws" + url.removeprefix("http") if websocket else url

    @property
    def facts(self) -> GateFacts:
        """Totals since the start, what lives included."""
        now = self._facts
        told = GateFacts(Counter(each.kind for each in self._open), now.opened, now.refused, now.cut)
        told.received, told.sent, told.dropped = Counter(now.received), Counter(now.sent), Counter(now.dropped)
        for each in self._open:
            _count(told, each)
        return told

    async def close(self, cause: str = "the server is shutting down") -> None:
        """End every connection with 1001, and let no new ones in. Idempotent."""
        self._closed = True
        for each in self._open:
            each.close_soon(CloseCode.GOING_AWAY, cause)
        await asyncio.gather(*(each.ended() for each in list(self._open)))
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    # --- who may ------------------------------------------------------------------------------------------------------

    def _admit(self, request: web.Request, address: str, kind: str, tenant: str) -> None:
        limits = self.settings
        if self._closed:
            self._refuse(kind, "closing", CapacityError("the server is shutting down"))
        origin = request.headers.get("Origin", "")
        if origin and not self.is_ours(request, origin):
            self._refuse(
                kind, "origin", NotAllowed(f"pages of {origin} may not connect here; gate.origins names those that may")
            )
        if len(self._open) >= limits.connections:
            self._refuse(kind, "connections", CapacityError(f"{limits.connections} connections are open"))
        if self._per_address[address] >= limits.per_address:
            self._refuse(
                kind, "per_address", CapacityError(f"{limits.per_address} connections are open from {address}")
            )
        if tenant and self._per_tenant[tenant] >= limits.per_tenant:
            self._refuse(kind, "per_tenant", CapacityError(f"{limits.per_tenant} connections are open for {tenant}"))
        if not self._in_pace(address):
            self._refuse(kind, "pace", CapacityError(f"more than {limits.opens_per_s:g} connections a second"))

    def is_ours(self, request: web.Request, origin: str) -> bool:
        """Whether a page of this origin (RFC 6454) may talk to us: one of our own, or of `gate.origins`."""
        allowed = self.settings.origins
        if "*" in allowed or origin in allowed:
            return True
        asked, ours = urlsplit(origin), urlsplit(self.public_url(request))
        return asked.netloc != "" and asked.netloc in (ours.netloc, request.host)

    def _refuse(self, kind: str, why: str, problem: Exception) -> None:
        self._facts.refused[why] += 1
        self._log.info("refused", kind=kind, why=why)
        raise problem

    def _in_pace(self, address: str) -> bool:
        """A bucket for each address: as many at once as a second has."""
        rate, now_s = self.settings.opens_per_s, asyncio.get_running_loop().time()
        left, at_s = self._paces.pop(address, (max(1.0, rate), now_s))
        left = min(max(1.0, rate), left + (now_s - at_s) * rate)
        allowed = left >= 1
        self._paces[address] = (left - allowed, now_s)
        if len(self._paces) > _ADDRESSES:
            self._paces.popitem(last=False)
        return allowed

    # --- those that are there -----------------------------------------------------------------------------------------

    def _began(self, connection: Connection) -> None:
        self._open.add(connection)
        self._per_address[connection.peer] += 1
        self._per_tenant[connection.tenant] += 1
        self._facts.opened[connection.kind] += 1
        if self._watch is None:
            self._watch = asyncio.create_task(self._look_for_ever(), name="gate")

    def _ended(self, connection: Connection) -> None:
        self._open.discard(connection)
        for counted, key in ((self._per_address, connection.peer), (self._per_tenant, connection.tenant)):
            counted[key] -= 1
            if not counted[key]:
                del counted[key]
        _count(self._facts, connection)
        if connection.code not in (CloseCode.DONE, CloseCode.GOING_AWAY) and not connection.by_peer:
            self._facts.cut[_name(connection.code)] += 1
            self._log.info("cut", kind=connection.kind, code=connection.code, cause=connection.cause)

    async def _look_for_ever(self) -> None:
        while self._open or not self._closed:
            await asyncio.sleep(_LOOK_S)
            now_s = asyncio.get_running_loop().time()
            for each in list(self._open):
                each.look(now_s)


def client_address(request: web.Request) -> str:
    """The client's address without its port. A proxy on this machine is believed whom it forwards for."""
    peer = request.remote or ""
    if _is_local(peer):
        forwarded = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
        with contextlib.suppress(ValueError):
            return str(ipaddress.ip_address(forwarded))
    return peer


def _is_local(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == ""  # a Unix socket


def _protocols(request: web.Request) -> tuple[str, ...]:
    offered = ",".join(request.headers.getall("Sec-WebSocket-Protocol", ()))
    return tuple(name for each in offered.split(",") if (name := each.strip()))


def _name(code: int) -> str:
    try:
        return CloseCode(code).name.lower()
    except ValueError:
        return str(code)


def _count(facts: GateFacts, connection: Connection) -> None:
    facts.received[connection.kind] += connection.received
    facts.sent[connection.kind] += connection.sent
    facts.dropped[connection.kind] += connection.dropped
