"""What the database has about a person, by the numbers or users under which they called or were called.

Owns what counts as such a trace: of whoever takes part, or is to; who is only spoken of leaves none. Refuses to know
how numbers are written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from sipserver.store.database import Database
from sipserver.store.reader import of_user
from sipserver.store.retention import Gone, Kept, delete
from sipserver.store.schema import calls, events

NUMBERS: Mapping[str, Sequence[str]] = {
    "call.started": ("from_uri", "to_uri"),
    "leg.replaced": ("uri",),
    "party.dialed": ("to",),
    "queue.connected": ("agent",),
    "queue.offered": ("agent",),
    "refer.received": ("target",),
    "sip.message": ("text",),  # in whatever header
    "transfer.started": ("to",),
}
"""In which fields of which kinds of events numbers and addresses stand. Others may have the same letters: the flow
`menu` is no trace of the user `menu`, nor is what somebody says or types one of whoever is spoken of.
"""


@dataclass(frozen=True, slots=True)
class Traces:
    """ids: of calls that are over, the oldest first; a further page begins after the last one. running: how many more
    there are that are not over.
    """

    ids: tuple[str, ...]
    running: int


_HALVES = r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
_QUESTION_MARK = r"\\u003f"
"""An escape itself: behind an escaped backslash the JSON stays valid."""


class PersonRows:
    """Loop thread. Safe to cancel. Raises SQLAlchemy's errors when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._engine, self._sqlite = database.engine, database.is_sqlite

    async def find(self, tenant: str, users: Sequence[str], *, after: str = "", limit: int = 500) -> Traces:
        """Calls of the tenant in which one of the users was the caller, was called, or is named by an event."""
        theirs = sa.and_(calls.c.tenant == tenant, _traces(users, self._sqlite))
        over = sa.select(calls.c.id).where(theirs, calls.c.ended_at.is_not(None), calls.c.id > after)
        running = sa.select(sa.func.count()).select_from(calls).where(theirs, calls.c.ended_at.is_(None))
        async with self._engine.connect() as connection:
            ids = (await connection.execute(over.order_by(calls.c.id).limit(limit))).scalars().all()
            return Traces(tuple(ids), int((await connection.execute(running)).scalar_one()))

    async def erase(self, ids: Sequence[str], now: datetime) -> Gone:
        """All records of these calls, and what webhooks still have of them; or nothing."""
        async with self._engine.begin() as connection:
            return await delete(connection, Kept.RECORDS, ids, now, "erasure")


def _traces(users: Sequence[str], sqlite: bool) -> sa.ColumnElement[bool]:
    """Calls from them and to them, and those of which an event has one of them where numbers stand.

    Of what is no UTF-8 halves of characters are kept (`\\udc..`), and from JSON with one PostgreSQL takes nothing out.
    """
    found = [of_user(column, user) for user in users for column in (calls.c.from_uri, calls.c.to_uri)]
    named: list[sa.ColumnElement[bool]] = []
    told = sa.cast(events.c.fields, sa.Text)
    whole = told if sqlite else sa.func.regexp_replace(told, _HALVES, _QUESTION_MARK, "g")
    fields = events.c.fields if sqlite else sa.cast(whole, sa.JSON)
    for kind, names in NUMBERS.items():
        values = [fields[name].as_string() for name in names]
        theirs = [of_user(value, user) for user in users for value in values]
        named.append(sa.and_(events.c.kind == kind, sa.or_(*theirs)))
    # Fields are taken out of those events alone that have the letters: a tenth of the time where messages are long.
    spelled = [told.contains(json.dumps(user)[1:-1], autoescape=True) for user in users]
    candidates = sa.and_(events.c.call_id == calls.c.id, events.c.kind.in_(NUMBERS), sa.or_(*spelled))
    mentioned: Any = sa.exists().where(candidates, sa.or_(*named))
    return sa.or_(*found, mentioned)
