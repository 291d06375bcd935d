"""Calls whose process died: closed with reason `crash`, at the moment of their last event.

A call whose last event is that it ended has ended as the event says; only the rest of its journal was lost.

Refuses to know how the death was noticed, and to touch recordings: it returns the calls, so that somebody can.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from sipserver.events import CallEnded
from sipserver.journal import Entry, Kind, micros
from sipserver.store import usage
from sipserver.store.open_call import CRASH, fitting
from sipserver.store.reader import CallFile, Files
from sipserver.store.schema import CRASHED, calls, events

LATE_US = 60_000_000
"""Before the last event: what is older has been told. Between writing and telling there are milliseconds."""
_EVENTS = sa.select(calls.c.node, calls.c.run, calls.c.tenant, events).select_from(
    events.join(calls, calls.c.id == events.c.call_id)
)


def of_run(run: str) -> sa.ColumnElement[bool]:
    return calls.c.run == run


def of_node(node: str) -> sa.ColumnElement[bool]:
    return calls.c.node == node


def of_earlier_runs(node: str, run: str) -> sa.ColumnElement[bool]:
    """This node's, but for the run that asks."""
    return sa.and_(calls.c.node == node, calls.c.run != run)


async def close(engine: AsyncEngine, which: sa.ColumnElement[bool], detail: str) -> Files:
    """Close those that are open, in one transaction, and return them. Raises SQLAlchemyError, OSError.

    A recording that was running is `failed` until somebody tells better. Two processes may do so at the same moment:
    each call is closed once.
    """
    async with engine.begin() as connection:
        left_open = await _left_open(connection, which)
        told_us = max([micros(time.time()), *(row["at_us"] or 0 for row in left_open)])
        for number, row in enumerate(left_open, 1):
            await _close_one(connection, row, detail, told_us + number)
        await usage.settle(connection, [{**row, "ended_at": _ended_at(row)} for row in left_open])
    return [CallFile(row["id"], row["tenant"], row["recording_path"]) for row in left_open if not _ended(row)]


async def last_words(engine: AsyncEngine, which: sa.ColumnElement[bool], detail: str) -> Sequence[Entry]:
    """What `close` is about to tell of those that are open, and what their processes may not have told before they
    died: their events of the last LATE_US, and an end for each that has none. Raises SQLAlchemyError, OSError.
    """
    left_open = sa.and_(calls.c.ended_at.is_(None), which)
    async with engine.connect() as connection:
        found = await _left_open(connection, which, locked=False)
        late_us = max((row["at_us"] or 0 for row in found), default=0) - LATE_US
        query = _EVENTS.where(left_open, events.c.at_us > late_us).order_by(events.c.at_us)
        said = [_entry(row) for row in (await connection.execute(query)).mappings()]
    return [*said, *(_end(row, detail) for row in found if not _ended(row))]


async def ends(engine: AsyncEngine, which: sa.ColumnElement[bool]) -> Sequence[Entry]:
    """The ends that `close` gave. Raises SQLAlchemyError, OSError."""
    query = _EVENTS.where(which, CRASHED, events.c.kind == CallEnded.kind).order_by(events.c.call_id, events.c.seq)
    async with engine.connect() as connection:
        return [_entry(row) for row in (await connection.execute(query)).mappings()]


async def unrepaired(engine: AsyncEngine, which: sa.ColumnElement[bool]) -> Files:
    """Calls that crashed and whose recordings nobody has repaired. Raises SQLAlchemyError, OSError."""
    broken = sa.and_(
        which,
        CRASHED,
        calls.c.recording_status == "failed",
        calls.c.recording_path.is_not(None),
    )
    columns = sa.select(calls.c.id, calls.c.tenant, calls.c.recording_path)
    async with engine.connect() as connection:
        found = await connection.execute(columns.where(broken).order_by(calls.c.started_at, calls.c.id))
        return [CallFile(*row) for row in found]


async def _left_open(connection: AsyncConnection, which: sa.ColumnElement[bool], *, locked: bool = True) -> list[Any]:
    """Rows of calls, with how many events of each were written, and the last one. locked: for this transaction."""
    left_open = sa.and_(calls.c.ended_at.is_(None), which)
    last = (
        sa.select(
            events.c.call_id,
            sa.func.count().label("written"),
            sa.func.max(events.c.seq).label("seq"),
        )
        .where(events.c.call_id.in_(sa.select(calls.c.id).where(left_open)))
        .group_by(events.c.call_id)
        .subquery()
    )
    query = (
        sa.select(calls, last.c.written, last.c.seq, events.c.at_ms, events.c.at_us, events.c.kind, events.c.fields)
        .outerjoin(last, last.c.call_id == calls.c.id)
        .outerjoin(events, sa.and_(events.c.call_id == last.c.call_id, events.c.seq == last.c.seq))
        .where(left_open)
        .order_by(calls.c.started_at, calls.c.id)
    )
    found = await connection.execute(query.with_for_update(of=calls) if locked else query)
    return list(found.mappings())


def _ended(row: Any) -> bool:
    return bool(row["kind"] == CallEnded.kind)


def _ended_at(row: Any) -> datetime:
    """When its last event happened."""
    at: datetime = row["started_at"] + timedelta(milliseconds=row["at_ms"] or 0)
    return at


def _entry(row: Any) -> Entry:
    told = {name: row[name] for name in ("tenant", "kind", "seq", "at_ms", "fields")}
    return Entry(Kind.EVENT, row["node"], row["run"], row["call_id"], row["at_us"] / 1e6, told)


def _end(row: Any, detail: str) -> Entry:
    """Of a call that is open, as `_close_one` writes it."""
    closing = CallEnded(reason=CRASH, detail=detail)
    told = {"kind": closing.kind, "seq": _next(row), "at_ms": row["at_ms"] or 0, "fields": closing.fields()}
    return Entry(Kind.EVENT, row["node"], row["run"], row["id"], time.time(), {"tenant": row["tenant"], **told})


def _next(row: Any) -> int:
    """The number of the event that follows."""
    return 0 if row["seq"] is None else int(row["seq"]) + 1


async def _close_one(connection: AsyncConnection, row: Any, detail: str, told_us: int) -> None:
    at_ms, written, seq = row["at_ms"] or 0, row["written"] or 0, _next(row)
    reason, sip_code = CRASH, None
    if _ended(row):
        reason, sip_code = row["fields"].get("reason", CRASH), row["fields"].get("sip_code")
    else:
        closing = CallEnded(reason=CRASH, detail=detail)
        event = {"call_id": row["id"], "seq": seq, "at_ms": at_ms, "kind": closing.kind, "fields": closing.fields()}
        await connection.execute(sa.insert(events).values({**event, "at_us": told_us}))
        written, seq = written + 1, seq + 1
    await connection.execute(
        sa.update(calls)
        .where(calls.c.id == row["id"])
        .values(
            ended_at=_ended_at(row),
            end_reason=fitting("end_reason", reason),
            sip_code=sip_code,
            state="ended",
            recording_status="failed" if row["recording_status"] == "recording" else row["recording_status"],
            events=written,
            events_dropped=seq - written,
        )
    )
