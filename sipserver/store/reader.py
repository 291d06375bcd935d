"""Reading what was recorded: calls and their events as frozen rows. Changes nothing but by `delete_older_than`.

Works beside a running server, in its process or in another one.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from sipserver.store.database import Database, opened_to_read
from sipserver.store.schema import calls, events
from sipserver.store.settings import StoreSettings


@dataclass(frozen=True, slots=True)
class CallRow:
    """One call. Moments are aware and in UTC; what has not happened is None. Counts are totals so far.

    node: the machine that has the call; run: the life of its process. recording_status: recording | complete | failed |
    refused. events counts those in the record, events_dropped those that were lost on the way, because a full disk
    refused them; the missing numbers in the events' seq tell where.
    """

    id: str
    tenant: str
    node: str
    run: str
    direction: str
    from_uri: str
    to_uri: str
    source: str
    sip_call_id: str
    route: int | None
    flow: str | None
    state: str
    started_at: datetime
    answered_at: datetime | None
    ended_at: datetime | None
    end_reason: str | None
    sip_code: int | None
    recording_path: str | None
    recording_status: str | None
    mos: float | None
    rtp_received: int | None
    rtp_lost: int | None
    jitter_ms: float | None
    turns: int
    digits: int
    faults: int
    events: int
    events_dropped: int


@dataclass(frozen=True, slots=True)
class EventRow:
    """One event. at_ms: since the call began. fields: those of the event's class in `sipserver.events`. at_us: when, in
    microseconds since the epoch; None for what an older server wrote.
    """

    call_id: str
    seq: int
    at_ms: int
    kind: str
    fields: dict[str, Any]
    at_us: int | None = None


@dataclass(frozen=True, slots=True)
class CallFile:
    """A call and what it left on the disk."""

    call_id: str
    tenant: str
    recording_path: str | None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which calls; what is empty or None does not matter. from_user, to_user: the user part of the URI, exactly.
    open: whether they run. since, until: of their begin; until is not within.
    """

    direction: str = ""
    from_user: str = ""
    to_user: str = ""
    open: bool | None = None
    end_reason: str = ""
    since: datetime | None = None
    until: datetime | None = None


Calls = list[CallRow]
Files = list[CallFile]
Runs = dict[tuple[str, str], int]
"""(node, run) of processes, and how many events of their open calls were written."""


class Reader:
    """Loop thread. Safe to cancel. Raises SQLAlchemy's errors when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, call_id: str) -> CallRow | None:
        """The call of that id; None if there is none."""
        rows = await self._calls(sa.select(calls).where(calls.c.id == call_id))
        return rows[0] if rows else None

    async def events(
        self, call_id: str, *, after_seq: int = -1, limit: int = 10_000, kinds: Sequence[str] = ()
    ) -> list[EventRow]:
        """The call's events in order; further pages follow the last seq of the one before. kinds: only these."""
        query = (
            sa.select(events)
            .where(events.c.call_id == call_id, events.c.seq > after_seq)
            .order_by(events.c.seq)
            .limit(limit)
        )
        if kinds:
            query = query.where(events.c.kind.in_(kinds))
        async with self._database.reading.connect() as connection:
            return [EventRow(**row) for row in (await connection.execute(query)).mappings()]

    async def page(
        self, tenant: str, wanted: Filter, *, after: tuple[datetime, str] | None = None, limit: int = 50
    ) -> Calls:
        """A tenant's calls, the newest first. after: begin and id of the last one of the page before."""
        query = sa.select(calls).where(calls.c.tenant == tenant, *_conditions(wanted))
        if after is not None:
            moment, call_id = after
            query = query.where(
                sa.or_(calls.c.started_at < moment, sa.and_(calls.c.started_at == moment, calls.c.id < call_id))
            )
        return await self._calls(query.order_by(calls.c.started_at.desc(), calls.c.id.desc()).limit(limit))

    async def list(
        self,
        limit: int = 50,
        before: datetime | None = None,
        *,
        tenant: str | None = None,
        sip_call_id: str | None = None,
        open_only: bool = False,
    ) -> Calls:
        """The newest calls first; before: only those that started earlier."""
        query = sa.select(calls).order_by(calls.c.started_at.desc(), calls.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(calls.c.started_at < before)
        if tenant is not None:
            query = query.where(calls.c.tenant == tenant)
        if sip_call_id is not None:
            query = query.where(calls.c.sip_call_id == sip_call_id)
        if open_only:
            query = query.where(calls.c.ended_at.is_(None))
        return await self._calls(query)

    async def open_runs(self) -> Runs:
        """Processes whose calls are not all closed."""
        query = (
            sa.select(calls.c.node, calls.c.run, sa.func.sum(calls.c.events))
            .where(calls.c.ended_at.is_(None))
            .group_by(calls.c.node, calls.c.run)
        )
        async with self._database.reading.connect() as connection:
            return {(node, run): int(count) for node, run, count in await connection.execute(query)}

    async def nodes(self, since: datetime) -> set[str]:
        """Machines that had calls which began after a moment."""
        query = sa.select(calls.c.node).where(calls.c.started_at > since).distinct()
        async with self._database.reading.connect() as connection:
            return set((await connection.execute(query)).scalars())

    async def delete_older_than(self, moment: datetime) -> Files:
        """Delete calls that ended before the moment, with their events. Returns them, so that recordings can go too."""
        condition = calls.c.ended_at < moment
        async with self._database.engine.begin() as connection:
            found = await connection.execute(
                sa.select(calls.c.id, calls.c.tenant, calls.c.recording_path).where(condition)
            )
            gone = [CallFile(*row) for row in found]
            await connection.execute(sa.delete(calls).where(condition))
        return gone

    async def _calls(self, query: sa.Select[Any]) -> Calls:
        async with self._database.reading.connect() as connection:
            return [CallRow(**row) for row in (await connection.execute(query)).mappings()]


def of_user(column: sa.ColumnElement[str], user: str) -> sa.ColumnElement[bool]:
    """Whether a column with a URI has this user, exactly: it stands between `:` and `@`, or alone."""
    return sa.or_(column.contains(f":{user}@", autoescape=True), column == user)


def _conditions(wanted: Filter) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = []
    if wanted.direction:
        found.append(calls.c.direction == wanted.direction)
    for column, user in ((calls.c.from_uri, wanted.from_user), (calls.c.to_uri, wanted.to_user)):
        if user:
            found.append(of_user(column, user))
    if wanted.open is not None:
        found.append(calls.c.ended_at.is_(None) if wanted.open else calls.c.ended_at.is_not(None))
    if wanted.end_reason:
        found.append(calls.c.end_reason == wanted.end_reason)
    if wanted.since is not None:
        found.append(calls.c.started_at >= wanted.since)
    if wanted.until is not None:
        found.append(calls.c.started_at < wanted.until)
    return found


@contextlib.asynccontextmanager
async def open_reader(settings: StoreSettings) -> AsyncIterator[Reader]:
    """For programs beside the server, such as `calls show`. Creates and migrates nothing; raises SettingsError."""
    async with opened_to_read(settings) as database:
        yield Reader(database)
