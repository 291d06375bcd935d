"""What calls that are not over have used so far, and the sound that a tenant keeps of all its calls: from what they
have told until now, which is written while they run. Each event is read once.

Owns what is remembered of a call from one look to the next. Refuses to say what an event means (`store.usage`), and to
write: what counts in the end is noted when a call is over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from sipserver.store.database import Database
from sipserver.store.parts import UNITS
from sipserver.store.schema import calls, events, stored
from sipserver.store.usage import KINDS, Account, Told
from sipserver.store.usage_rows import UsageRow

LONGEST = timedelta(days=1)
"""A call that runs for longer is not looked for until it is over."""
MOST = 5_000
"""Calls of one tenant that are looked at."""
EVENTS = 500
"""Read at once: what is done with them holds the loop up for some milliseconds."""
RANGES = 50
"""Of events that are asked for at once: a call has one, or some."""
AT_A_TIME = 100
"""Calls that are told in one turn of the loop."""
REMEMBERED_S = 600.0
"""Calls of a tenant for whom nobody asks for so long are forgotten, and read anew when somebody does."""


@dataclass(frozen=True, slots=True)
class SoFar:
    """Of one call. used: until now. kept: bytes of its sound; of a recording that runs as many as it is long."""

    used: Sequence[UsageRow]
    kept: int


@dataclass(slots=True)
class _Known:
    """next_seq: of the first event that was not read."""

    account: Account = field(default_factory=Account)
    next_seq: int = 0


@dataclass(frozen=True, slots=True)
class _Range:
    """Events of a call. end: not within."""

    call_id: str
    first: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.first


@dataclass(slots=True)
class _Tenant:
    calls: Mapping[str, _Known]
    asked_s: float


class Running:
    """Loop thread. Safe to cancel. Raises SQLAlchemy's errors when the database does not answer. clock: seconds that
    never jump.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database, self._clock = database, clock
        self._tenants: dict[str, _Tenant] = {}

    async def stored(self, tenant: str, now: datetime) -> int:
        """Bytes of sound that are kept of the tenant's calls."""
        query = sa.select(sa.func.coalesce(sa.func.sum(stored.c.bytes), 0)).where(stored.c.tenant == tenant)
        async with self._database.engine.connect() as connection:
            kept = int((await connection.execute(query)).scalar_one())
        # Read after the others: one that ends between is missing this time, instead of being counted twice.
        async for call in self.of(tenant, now):
            kept += call.kept
        return kept

    async def of(self, tenant: str, now: datetime) -> AsyncIterator[SoFar]:
        """The tenant's calls that are not over and began within LONGEST; of MOST at most, the oldest."""
        async with self._database.engine.connect() as connection:
            found = await _open_calls(connection, tenant, now)
            known = self._remembered(tenant, [row["id"] for row in found])
            for group in _unread(found, known):
                await _read(connection, group, known)
        for number, row in enumerate(found, 1):
            yield _so_far(tenant, row, known[row["id"]].account.closed(row, now))
            if number % AT_A_TIME == 0:
                await asyncio.sleep(0)

    def _remembered(self, tenant: str, call_ids: Sequence[str]) -> Mapping[str, _Known]:
        now_s = self._clock()
        before = self._tenants.pop(tenant, _Tenant({}, now_s)).calls
        known = {call_id: before.get(call_id) or _Known() for call_id in call_ids}
        self._tenants = {name: one for name, one in self._tenants.items() if now_s - one.asked_s < REMEMBERED_S}
        self._tenants[tenant] = _Tenant(known, now_s)
        return known


async def _open_calls(connection: AsyncConnection, tenant: str, now: datetime) -> Sequence[Mapping[str, Any]]:
    columns = (calls.c.id, calls.c.started_at, calls.c.answered_at, calls.c.direction, calls.c.recording_path)
    told = (calls.c.events + calls.c.events_dropped).label("told")
    query = (
        sa.select(*columns, told)
        .where(calls.c.tenant == tenant, calls.c.started_at >= now - LONGEST, calls.c.ended_at.is_(None))
        .order_by(calls.c.started_at)
        .limit(MOST)
    )
    return [dict(row) for row in (await connection.execute(query)).mappings()]


def _unread(found: Sequence[Mapping[str, Any]], known: Mapping[str, _Known]) -> Iterator[Sequence[_Range]]:
    """What calls have told since, in groups that are read at once. Events are written in order, and with them how many
    there are.
    """
    group: list[_Range] = []
    size = 0
    for row in found:
        for first in range(known[row["id"]].next_seq, row["told"], EVENTS):
            each = _Range(row["id"], first, min(row["told"], first + EVENTS))
            if group and (size + each.size > EVENTS or len(group) >= RANGES):
                yield group
                group, size = [], 0
            group.append(each)
            size += each.size
    if group:
        yield group


async def _read(connection: AsyncConnection, group: Sequence[_Range], known: Mapping[str, _Known]) -> None:
    of_one = (
        sa.and_(events.c.call_id == each.call_id, events.c.seq >= each.first, events.c.seq < each.end) for each in group
    )
    query = (
        sa.select(events.c.call_id, events.c.seq, events.c.at_ms, events.c.kind, events.c.fields)
        .where(sa.or_(*of_one), events.c.kind.in_(KINDS))
        .order_by(events.c.call_id, events.c.seq)
    )
    for call_id, seq, at_ms, kind, fields in await connection.execute(query):
        if seq >= known[call_id].next_seq:  # another look may have read it meanwhile
            known[call_id].account.take(Told(at_ms, kind, fields))
            known[call_id].next_seq = seq + 1
    for each in group:
        known[each.call_id].next_seq = max(known[each.call_id].next_seq, each.end)


def _so_far(tenant: str, row: Mapping[str, Any], account: Account) -> SoFar:
    used = [
        UsageRow(
            row["id"],
            tenant,
            row["started_at"],
            item.part,
            item.leg,
            item.engine,
            item.vendor,
            item.model,
            quantity,
            UNITS[item.part],
        )
        for item, quantity in account.used.items()
    ]
    return SoFar(used, sum(account.kept.values()))
