"""`WS /ws/events/{tenant_id}`: what happens in a tenant's calls, as it happens.

Owns who listens, what each wants to hear, and the JSON. Refuses to keep anything: who was not there, or was too slow,
reads the record of the call.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from fnmatch import fnmatchcase
from typing import Protocol

from aiohttp import web

from sipserver.api.token_socket import FOLLOWED, claimed, until_over
from sipserver.errors import CapacityError
from sipserver.events import Stamped, patterns
from sipserver.gate.connection import Connection
from sipserver.gate.gate import Gate
from sipserver.gate.requests import address_of
from sipserver.store.database import UNAVAILABLE
from sipserver.tenants.principal import Principal, of_token

LOST = "events.lost"
MOST_KINDS = 32
"""Patterns in one `kinds`; further ones are ignored."""

_json = json.JSONEncoder(separators=(",", ":"), default=str, check_circular=False).encode


class Listener:
    """One client. kinds: patterns (`call.*`) of which one must match; none: all. call: only this call; empty: all."""

    def __init__(self, connection: Connection, kinds: Sequence[str] = (), call: str = "") -> None:
        self._connection, self._kinds, self._call = connection, kinds, call
        self._known: dict[str, bool] = {}
        self._lost = 0

    def wants(self, stamped: Stamped) -> bool:
        if self._call and stamped.call_id != self._call:
            return False
        if not self._kinds:
            return True
        kind = stamped.event.kind
        known = self._known.get(kind)
        if known is None:
            known = self._known[kind] = any(fnmatchcase(kind, pattern) for pattern in self._kinds)
        return known

    def tell(self, text: str) -> None:
        """A client that is too slow misses it, and reads how many it missed before the next one that it gets."""
        if self._lost and self._connection.send(_json({"kind": LOST, "count": self._lost}), droppable=True):
            self._lost = 0
        if self._lost or not self._connection.send(text, droppable=True):
            self._lost += 1


class EventHub:
    """Hands events to those who listen. `observe` is one of the exchange's listeners: loop thread, never blocks, and
    costs one look-up while nobody of the tenant listens.
    """

    def __init__(self) -> None:
        self._listeners: dict[str, list[Listener]] = {}

    @property
    def listeners(self) -> int:
        return sum(map(len, self._listeners.values()))

    def observe(self, stamped: Stamped) -> None:
        listeners = self._listeners.get(stamped.tenant)
        if listeners is None:
            return
        text = ""
        for listener in listeners:
            if listener.wants(stamped):
                text = text or as_json(stamped)
                listener.tell(text)

    def add(self, tenant: str, listener: Listener) -> None:
        self._listeners.setdefault(tenant, []).append(listener)

    def remove(self, tenant: str, listener: Listener) -> None:
        listeners = self._listeners[tenant]
        listeners.remove(listener)
        if not listeners:
            del self._listeners[tenant]


def as_json(stamped: Stamped) -> str:
    """One line of ASCII. fields: those of the event, also speech, digits and numbers: they belong to the tenant."""
    event = stamped.event
    return _json(
        {
            "kind": event.kind,
            "call_id": stamped.call_id,
            "tenant": stamped.tenant,
            "at_ms": stamped.at_ms,
            "fields": event.fields(),
        }
    )


Note = Callable[[Principal, str, str, str], Awaitable[object]]
"""(who, deed, subject, source): keeps it in the audit log. Raises the database's errors."""


class ForKeys(Protocol):
    """The same path for those who have an API key: `live.socket`."""

    def takes(self, request: web.Request) -> bool: ...

    async def listen(self, request: web.Request) -> web.StreamResponse: ...


def routes(hub: EventHub, gate: Gate, note: Note, for_keys: ForKeys | None = None) -> Sequence[web.RouteDef]:
    """`?kinds=call.*,turn.*` and `?call=<id>` choose; both may be left out. Needs a token for the tenant's events, and
    ends with it. What the client sends is ignored, within the gate's limits. note: whoever cannot be noted hears
    nothing.
    """

    async def listen(request: web.Request) -> web.StreamResponse:
        if for_keys is not None and for_keys.takes(request):
            return await for_keys.listen(request)
        tenant = request.match_info["tenant_id"]
        claims = await claimed(gate, request, tenant)
        kinds = _kinds(request)
        try:  # before the upgrade: who is connected hears everything from then on
            await note(of_token(tenant, claims.serial), FOLLOWED, f"tenant:{tenant}", address_of(request))
        except UNAVAILABLE:
            raise CapacityError("the audit log cannot be written now") from None
        async with gate.open(request, kind="events", tenant=tenant) as connection:
            listener = Listener(connection, kinds, request.query.get("call", ""))
            hub.add(tenant, listener)
            try:
                with until_over(gate.tokens, claims, connection):
                    async for _ in connection:
                        pass
            finally:
                hub.remove(tenant, listener)
        return connection.response

    return [web.get("/ws/events/{tenant_id}", listen)]


def _kinds(request: web.Request) -> Sequence[str]:
    given = ",".join(request.query.getall("kinds", [])).split(",")
    kinds = [kind for each in given if (kind := each.strip())][:MOST_KINDS]
    patterns.check(kinds)
    return kinds
