"""`WS /ws/events/{tenant}` for programs with an API key, or with a token: live, and from a cursor on.

Owns who may listen, for how long the key that let them in is good, and one feed a tenant for all of them. Refuses to
know how events come together (`feed`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

from aiohttp import web

from sipserver.api.live.cursor import Cursor
from sipserver.api.live.feed import Feed, now_us
from sipserver.api.live.listener import Listener, Wanted
from sipserver.api.live.missing import FeedSource
from sipserver.api.rest.access import Access, Recognise
from sipserver.api.token_socket import FOLLOWED, claimed, until_over
from sipserver.bus.contract import Live
from sipserver.errors import CallerError, CapacityError, NotFound
from sipserver.events import patterns
from sipserver.gate.close_codes import Close
from sipserver.gate.connection import Connection
from sipserver.gate.gate import Gate
from sipserver.gate.requests import address_of
from sipserver.gate.tokens import Claims
from sipserver.log import logger
from sipserver.store.database import UNAVAILABLE, brief
from sipserver.store.feed_rows import FeedRow, Newest
from sipserver.tenants.keys import PREFIX, Scope
from sipserver.tenants.principal import Principal, of_token

PATH = "/ws/events/{tenant_id}"
KEY_LOOK_S = 1.0
"""How often keys of open sockets are looked at; what is known of a key may be two seconds old."""
MOST_KINDS = 32
READERS = 2
"""Clients that catch up may use so many connections to the database at a time."""

Note = Callable[[Principal, str, str, str], Awaitable[object]]
"""(who, deed, subject, source): keeps it in the audit log."""


class EventSocket:
    """Loop thread. `routes`, or `listen` for a request that `takes` says yes to; `close` at the end."""

    def __init__(
        self, gate: Gate, access: Access, recognise: Recognise, source: FeedSource, live: Live, note: Note
    ) -> None:
        self._gate, self._access, self._recognise, self._note = gate, access, recognise, note
        self._source, self._shared, self._live = source, _Shared(source), live
        self._feeds: dict[str, Feed] = {}
        self._users: Counter[str] = Counter()
        self._changing = asyncio.Lock()
        self._keys: dict[str, set[Connection]] = {}
        self._watching: asyncio.Task[None] | None = None
        self._log = logger("api")

    def routes(self) -> Sequence[web.RouteDef]:
        return [web.get(PATH, self.listen)]

    def takes(self, request: web.Request) -> bool:
        """It came with an API key."""
        return self._gate.token_of(request).startswith(f"{PREFIX}_")

    async def listen(self, request: web.Request) -> web.StreamResponse:
        """`?kinds=call.*,turn.*` and `?call=<id>` choose, `?after=<cursor>` says from where on. What the client sends
        is ignored, within the gate's limits. Raises what becomes an answer before the upgrade.
        """
        tenant, text = request.match_info["tenant_id"], self._gate.token_of(request)
        who, claims = await self._admit(request, tenant, text)
        wanted = Wanted(_kinds(request), request.query.get("call", ""))
        after = request.query.get("after", "")
        since = Cursor.parse(after, now_us()) if after else None
        async with self._gate.open(request, kind="events", tenant=tenant) as connection:
            try:
                await self._note(who, FOLLOWED, f"tenant:{tenant}", address_of(request))
            except UNAVAILABLE:
                raise CapacityError("the audit log cannot be written now") from None
            tokens = self._gate.tokens
            with self._watched(text, connection) if claims is None else until_over(tokens, claims, connection):
                await self._follow(connection, tenant, wanted, since)
        return connection.response

    async def close(self) -> None:
        """After the gate has closed the sockets."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        for feed in self._feeds.values():
            await feed.close()
        self._feeds.clear()

    async def _admit(self, request: web.Request, tenant: str, text: str) -> tuple[Principal, Claims | None]:
        """Who it is, and the token; None: it was a key."""
        if not self.takes(request):
            claims = await claimed(self._gate, request, tenant)
            return of_token(tenant, claims.serial), claims
        key = await self._access.admit(request, Scope.EVENTS_READ, text)
        if key.tenant != tenant:
            raise NotFound(f"there is no tenant {tenant} for this API key")
        return key, None

    async def _follow(self, connection: Connection, tenant: str, wanted: Wanted, since: Cursor | None) -> None:
        async with self._feed(tenant) as feed:
            listener = Listener(connection, tenant, wanted)
            reached = feed.reached()
            feed.add(listener)
            catching = asyncio.create_task(
                self._catch_up(listener, since, reached, feed), name=f"catch up with events of {tenant}"
            )
            try:
                async for _ in connection:
                    pass
            finally:
                feed.remove(listener)
                catching.cancel()
                await asyncio.gather(catching, return_exceptions=True)

    async def _catch_up(self, listener: Listener, since: Cursor | None, reached: Cursor, feed: Feed) -> None:
        try:
            await listener.catch_up(since, reached, feed.reached, self._shared)
        except CapacityError as problem:
            listener.connection.close_soon(Close.TRY_LATER, str(problem))
        except Exception:
            self._log.exception("a client cannot catch up with events")
            listener.connection.close_soon(Close.OUR_FAULT)

    @contextlib.asynccontextmanager
    async def _feed(self, tenant: str) -> AsyncIterator[Feed]:
        """That of the tenant, which lives as long as somebody uses it. Raises CapacityError."""
        async with self._changing:
            if tenant not in self._feeds:
                made = Feed(tenant, self._source)
                try:
                    await made.open(self._live)
                except UNAVAILABLE as problem:
                    self._log.warning("events cannot be read", error=brief(problem))
                    raise CapacityError("the call records cannot be read now") from None
                self._feeds[tenant] = made
            feed = self._feeds[tenant]
            self._users[tenant] += 1
        try:
            yield feed
        finally:
            self._users[tenant] -= 1
            if not self._users[tenant]:
                await asyncio.shield(self._let_go(tenant))

    async def _let_go(self, tenant: str) -> None:
        async with self._changing:
            if not self._users[tenant]:
                del self._users[tenant]
                if (feed := self._feeds.pop(tenant, None)) is not None:
                    await feed.close()

    # --- keys ---------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _watched(self, text: str, connection: Connection) -> Iterator[None]:
        """Closed soon after its key is no longer good. text: the key."""
        self._keys.setdefault(text, set()).add(connection)
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch(), name="keys of event sockets")
        try:
            yield
        finally:
            self._keys[text].discard(connection)
            if not self._keys[text]:
                del self._keys[text]

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(KEY_LOOK_S)
            for text in tuple(self._keys):
                try:
                    good = await self._recognise(text) is not None
                except UNAVAILABLE as problem:
                    self._log.warning("keys of open sockets cannot be looked at", error=brief(problem))
                    break
                if not good:
                    for connection in tuple(self._keys.get(text, ())):
                        connection.close_soon(Close.KEY_OVER)


class _Shared:
    """The database for many who want to read at once."""

    def __init__(self, source: FeedSource) -> None:
        self._source, self._turn = source, asyncio.Semaphore(READERS)

    async def after(self, tenant: str, after_us: int, limit: int) -> Sequence[FeedRow]:
        async with self._turn:
            return await self._source.after(tenant, after_us, limit)

    async def newest(self, tenant: str, after_us: int) -> Newest:
        async with self._turn:
            return await self._source.newest(tenant, after_us)


def _kinds(request: web.Request) -> tuple[str, ...]:
    given = ",".join(request.query.getall("kinds", [])).split(",")
    kinds = [kind for each in given if (kind := each.strip())]
    if len(kinds) > MOST_KINDS:
        raise CallerError(f"`kinds` has {len(kinds)} patterns; {MOST_KINDS} are taken at most")
    patterns.check(kinds)
    return tuple(kinds)
