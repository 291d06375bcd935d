"""What the database has about a person, by the numbers or users under which they called or were called.

Owns what counts as such a trace. Refuses to know how numbers are written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from sipserver.store.database import Database
from sipserver.store.reader import of_user
from sipserver.store.retention import Kept, delete
from sipserver.store.schema import calls, events, webhook_messages


@dataclass(frozen=True, slots=True)
class Traces:
    """ids: of calls that are over, the oldest first; a further page begins after the last one. running: how many more
    there are that are not over.
    """

    ids: tuple[str, ...]
    running: int


class PersonRows:
    """Loop thread. Safe to cancel. Raises SQLAlchemy's errors when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._engine = database.engine

    async def find(self, tenant: str, users: Sequence[str], *, after: str = "", limit: int = 500) -> Traces:
        """Calls of the tenant in which one of the users was the caller, was called, or is named by an event."""
        theirs = sa.and_(calls.c.tenant == tenant, _traces(users))
        over = sa.select(calls.c.id).where(theirs, calls.c.ended_at.is_not(None), calls.c.id > after)
        running = sa.select(sa.func.count()).select_from(calls).where(theirs, calls.c.ended_at.is_(None))
        async with self._engine.connect() as connection:
            ids = (await connection.execute(over.order_by(calls.c.id).limit(limit))).scalars().all()
            return Traces(tuple(ids), int((await connection.execute(running)).scalar_one()))

    async def erase(self, ids: Sequence[str], now: datetime) -> tuple[int, int]:
        """All records of these calls, and what webhooks still have of them; or nothing. Returns how many files are
        doomed, and how many messages are gone.
        """
        async with self._engine.begin() as connection:
            files = await delete(connection, Kept.RECORDS, ids, now, "erasure")
            gone = await connection.execute(sa.delete(webhook_messages).where(webhook_messages.c.lane.in_(ids)))
            return files, gone.rowcount


def _traces(users: Sequence[str]) -> sa.ColumnElement[bool]:
    """Of an event's fields, those that hold a URI with the user, or the user alone."""
    told = sa.cast(events.c.fields, sa.Text)
    found: list[sa.ColumnElement[bool]] = []
    named: list[sa.ColumnElement[bool]] = []
    for user in users:
        found += [of_user(calls.c.from_uri, user), of_user(calls.c.to_uri, user)]
        named += [told.contains(f":{user}@", autoescape=True), told.contains(f'"{user}"', autoescape=True)]
    mentioned: Any = sa.exists().where(events.c.call_id == calls.c.id, sa.or_(*named))
    return sa.or_(*found, mentioned)
