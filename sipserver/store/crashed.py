"""Calls whose process died: closed with reason `crash`, at the moment of their last event.

Refuses to know how the death was noticed, and to touch recordings: it returns the calls, so that somebody can.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from sipserver.events import CallEnded
from sipserver.store.open_call import CRASH
from sipserver.store.reader import CallFile, Files
from sipserver.store.schema import calls, events


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
        return [await _close_one(connection, row, detail) for row in await _left_open(connection, which)]


async def unrepaired(engine: AsyncEngine, which: sa.ColumnElement[bool]) -> Files:
    """Calls that crashed and whose recordings nobody has repaired. Raises SQLAlchemyError, OSError."""
    broken = sa.and_(
        which,
        calls.c.end_reason == CRASH,
        calls.c.recording_status == "failed",
        calls.c.recording_path.is_not(None),
    )
    columns = sa.select(calls.c.id, calls.c.tenant, calls.c.recording_path)
    async with engine.connect() as connection:
        found = await connection.execute(columns.where(broken).order_by(calls.c.started_at, calls.c.id))
        return [CallFile(*row) for row in found]


async def _left_open(connection: AsyncConnection, which: sa.ColumnElement[bool]) -> list[Any]:
    """Rows of calls, with how many events of each were written, and the last one's seq and at_ms."""
    left_open = sa.and_(calls.c.ended_at.is_(None), which)
    last = (
        sa.select(
            events.c.call_id,
            sa.func.count().label("written"),
            sa.func.max(events.c.seq).label("seq"),
            sa.func.max(events.c.at_ms).label("at_ms"),
        )
        .where(events.c.call_id.in_(sa.select(calls.c.id).where(left_open)))
        .group_by(events.c.call_id)
        .subquery()
    )
    query = (
        sa.select(calls, last.c.written, last.c.seq, last.c.at_ms)
        .outerjoin(last, last.c.call_id == calls.c.id)
        .where(left_open)
        .order_by(calls.c.started_at, calls.c.id)
        .with_for_update(of=calls)
    )
    return list((await connection.execute(query)).mappings())


async def _close_one(connection: AsyncConnection, row: Any, detail: str) -> CallFile:
    at_ms, written = row["at_ms"] or 0, row["written"] or 0
    seq = 0 if row["seq"] is None else row["seq"] + 1
    closing = CallEnded(reason=CRASH, detail=detail)
    await connection.execute(
        sa.update(calls)
        .where(calls.c.id == row["id"])
        .values(
            ended_at=row["started_at"] + timedelta(milliseconds=at_ms),
            end_reason=CRASH,
            state="ended",
            recording_status="failed" if row["recording_status"] == "recording" else row["recording_status"],
            events=written + 1,
            events_dropped=seq - written,
        )
    )
    await connection.execute(
        sa.insert(events).values(call_id=row["id"], seq=seq, at_ms=at_ms, kind=closing.kind, fields=closing.fields())
    )
    return CallFile(row["id"], row["tenant"], row["recording_path"])
