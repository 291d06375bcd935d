"""One transaction's worth of records, written so that writing it again does no harm.

A commit whose answer was lost is simply repeated: calls and events that are there already are written over.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError, StatementError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from sipserver.store import usage
from sipserver.store.database import sqlstate
from sipserver.store.open_call import CRASH
from sipserver.store.schema import calls, events

Row = dict[str, Any]

_UNFIT = (TypeError, ValueError, ArithmeticError)
"""What drivers raise for values that they cannot send."""


async def write(
    engine: AsyncEngine, call_rows: Sequence[Row], event_rows: Sequence[Row], over: Sequence[Row] = ()
) -> int:
    """Write both in one transaction, and what the calls that are over have used; they are among call_rows. Returns how
    many rows the database would never take (and were left out).

    Raises SQLAlchemyError or OSError when the database cannot write now: nothing was written then, try again.
    """
    try:
        async with engine.begin() as connection:
            await _put(connection, call_rows, event_rows)
            await usage.settle(connection, over)
    except (SQLAlchemyError, *_UNFIT) as problem:
        if not _hopeless(problem):
            raise
        return await _salvage(engine, call_rows, event_rows, over)
    return 0


async def _salvage(
    engine: AsyncEngine, call_rows: Sequence[Row], event_rows: Sequence[Row], over: Sequence[Row]
) -> int:
    """Row by row, so that one bad row costs nothing but itself."""
    lost = 0
    singles: list[tuple[Sequence[Row], Sequence[Row]]] = [([row], []) for row in call_rows]
    singles += [([], [row]) for row in event_rows]
    for pair in singles:
        try:
            async with engine.begin() as connection:
                await _put(connection, *pair)
        except (SQLAlchemyError, *_UNFIT) as problem:
            if not _hopeless(problem):
                raise
            lost += 1
    for row in over:
        try:
            async with engine.begin() as connection:
                await _put(connection, [row], ())  # for its lock
                await usage.settle(connection, [row])
        except (SQLAlchemyError, *_UNFIT) as problem:
            if not _hopeless(problem):
                raise
    return lost


async def _put(connection: AsyncConnection, call_rows: Sequence[Row], event_rows: Sequence[Row]) -> None:
    if call_rows:
        await connection.execute(_upsert_calls(connection.dialect.name), list(call_rows))
    if event_rows:
        await connection.execute(_insert_events(connection.dialect.name), list(event_rows))


@functools.cache
def _upsert_calls(dialect: str) -> Any:
    statement = (postgresql if dialect == "postgresql" else sqlite).insert(calls)
    new = statement.excluded
    changing = {column.name: new[column.name] for column in calls.columns if not column.primary_key}
    # A writer that was stopped and replaced may still finish what it had begun: what it knows is older.
    not_older = new.events + new.events_dropped >= calls.c.events + calls.c.events_dropped
    not_opened_again = sa.or_(calls.c.ended_at.is_(None), new.ended_at.is_not(None), calls.c.end_reason == CRASH)
    return statement.on_conflict_do_update(
        index_elements=["id"], set_=changing, where=sa.and_(not_older, not_opened_again)
    )


@functools.cache
def _insert_events(dialect: str) -> Any:
    statement = (postgresql if dialect == "postgresql" else sqlite).insert(events)
    changing = {name: statement.excluded[name] for name in ("at_ms", "kind", "fields", "at_us")}
    return statement.on_conflict_do_update(index_elements=["call_id", "seq"], set_=changing)


def _hopeless(problem: Exception) -> bool:
    """Whether the row is to blame, not the database: the same row would fail again."""
    unfit = isinstance(problem, StatementError) and not isinstance(problem, DBAPIError)
    refused = sqlstate(problem)[:2] in ("22", "23")  # PostgreSQL: data exception, integrity constraint violation
    return unfit or refused or isinstance(problem, (IntegrityError, DataError, *_UNFIT))
