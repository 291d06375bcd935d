"""Deleting what is too old, a batch at a time: which rows these are, and what goes with them.

Owns what belongs to a call. Files are not deleted here but doomed: the machine that has them does it (`doomed`).
Refuses to know for how long anything is kept. Calls that run are never touched.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from sipserver.store import usage
from sipserver.store.database import Database
from sipserver.store.schema import calls, doomed_files, duties, events, stored, webhook_messages


class Kept(enum.StrEnum):
    """What is kept for a time of its own."""

    RECORDS = "records"
    EVENTS = "events"
    TRANSCRIPTS = "transcripts"
    RECORDINGS = "recordings"
    VOICEMAIL = "voicemail"
    WEBHOOKS = "webhooks"


SAID = (
    *("stt.transcript", "llm.span", "tool.span", "tts.clause", "tts.spoken", "voicemail.transcribed"),
    *("variable.set", "digit.received", "digit.sent", "stream.message"),
)
"""Kinds of events that hold what was said and typed."""
MESSAGES = ("voicemail.left", "voicemail.transcribed")
FILES = ("voicemail.left", "recording.started")
"""Kinds of events that say which files a call has: they stay until the call goes."""


@dataclass(frozen=True, slots=True)
class Gone:
    """files: doomed. messages: of webhooks, delivered or not."""

    files: int
    messages: int


@dataclass(frozen=True, slots=True)
class Found:
    """ids: of calls, or of webhooks' messages, the oldest first. oldest, newest: when the first and the last ended."""

    ids: tuple[str, ...]
    oldest: datetime | None = None
    newest: datetime | None = None


class RetentionRows:
    """Loop thread. Safe to cancel. Raises SQLAlchemy's errors when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._engine = database.engine

    async def tenants(self) -> list[str]:
        """All that have calls or messages."""
        query = sa.union(sa.select(calls.c.tenant).distinct(), sa.select(webhook_messages.c.tenant).distinct())
        async with self._engine.connect() as connection:
            return sorted((await connection.execute(query)).scalars())

    async def find(self, tenant: str, kind: Kept, before: datetime, limit: int) -> Found:
        """What ended before the moment and still is there, the oldest first."""
        query = _query(tenant, kind, before)
        async with self._engine.connect() as connection:
            rows = (await connection.execute(query.limit(limit))).all()
        return Found(tuple(row[0] for row in rows), rows[0][1], rows[-1][1]) if rows else Found(())

    async def count(self, tenant: str, kind: Kept, before: datetime) -> int:
        """How many these are."""
        query = sa.select(sa.func.count()).select_from(_query(tenant, kind, before).order_by(None).subquery())
        async with self._engine.connect() as connection:
            return int((await connection.execute(query)).scalar_one())

    async def delete(self, kind: Kept, ids: Sequence[str], now: datetime, reason: str = "retention") -> int:
        """All of them, or none. Returns how many files are doomed by that."""
        async with self._engine.begin() as connection:
            return (await delete(connection, kind, ids, now, reason)).files

    async def claim(self, duty: str, holder: str, now: datetime, until: datetime) -> bool:
        """Whether the duty is the holder's until then: nobody else has it."""
        mine = sa.and_(duties.c.name == duty, sa.or_(duties.c.holder == holder, duties.c.until < now))
        async with self._engine.begin() as connection:
            taken = await connection.execute(sa.update(duties).where(mine).values(holder=holder, until=until))
        if taken.rowcount:
            return True
        try:
            async with self._engine.begin() as connection:
                await connection.execute(sa.insert(duties).values(name=duty, holder=holder, until=until))
        except IntegrityError:
            return False
        return True

    async def leave(self, duty: str, holder: str) -> None:
        """Somebody else may have it."""
        async with self._engine.begin() as connection:
            await connection.execute(sa.delete(duties).where(duties.c.name == duty, duties.c.holder == holder))


async def delete(connection: AsyncConnection, kind: Kept, ids: Sequence[str], now: datetime, reason: str) -> Gone:
    """Within a transaction. What webhooks still have of a call goes with what they have it of."""
    doomed = 0
    if kind is Kept.WEBHOOKS:
        gone = await connection.execute(sa.delete(webhook_messages).where(webhook_messages.c.id.in_(ids)))
        return Gone(0, gone.rowcount)
    sound = []
    if kind in (Kept.RECORDS, Kept.RECORDINGS):
        doomed += await _doom_recordings(connection, ids, now, reason)
        sound.append(usage.RECORDING)
    if kind in (Kept.RECORDS, Kept.VOICEMAIL):
        doomed += await _doom_messages(connection, ids, now, reason)
        sound.append(usage.VOICEMAIL)
    await connection.execute(sa.delete(stored).where(stored.c.call_id.in_(ids), stored.c.kind.in_(sound)))
    if kind is Kept.RECORDS:
        await connection.execute(sa.delete(calls).where(calls.c.id.in_(ids)))
    elif kind is Kept.RECORDINGS:
        none = {"recording_path": None, "recording_status": None}
        await connection.execute(sa.update(calls).where(calls.c.id.in_(ids)).values(**none))
        return Gone(doomed, 0)
    else:
        await connection.execute(sa.delete(events).where(events.c.call_id.in_(ids), _of_kind(kind, events.c.kind)))
        left = sa.select(sa.func.count()).where(events.c.call_id == calls.c.id).scalar_subquery()
        await connection.execute(sa.update(calls).where(calls.c.id.in_(ids)).values(events=left))
    told = sa.delete(webhook_messages).where(webhook_messages.c.lane.in_(ids))
    gone = await connection.execute(told.where(_of_kind(kind, webhook_messages.c.kind)))
    return Gone(doomed, gone.rowcount)


def _of_kind(kind: Kept, column: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Which kinds of events go. column: of the events' kinds."""
    which = {
        Kept.RECORDS: sa.true(),
        Kept.EVENTS: column.not_in(FILES),
        Kept.TRANSCRIPTS: column.in_(SAID),
        Kept.VOICEMAIL: column.in_(MESSAGES),
    }
    return which[kind]


def _query(tenant: str, kind: Kept, before: datetime) -> sa.Select[Any]:
    """Ids, and when they ended, the oldest first."""
    if kind is Kept.WEBHOOKS:
        columns = webhook_messages.c
        query = sa.select(columns.id, columns.settled_at)
        return query.where(columns.tenant == tenant, columns.settled_at < before).order_by(columns.settled_at)
    query = sa.select(calls.c.id, calls.c.ended_at).where(calls.c.tenant == tenant, calls.c.ended_at < before)
    if kind is Kept.RECORDINGS:
        query = query.where(calls.c.recording_path.is_not(None))
    elif kind is not Kept.RECORDS:
        query = query.where(sa.exists().where(events.c.call_id == calls.c.id, _of_kind(kind, events.c.kind)))
    return query.order_by(calls.c.ended_at, calls.c.id)


async def _doom_recordings(connection: AsyncConnection, ids: Sequence[str], now: datetime, reason: str) -> int:
    """All of a call's files: its row names the last one, its events each."""
    where = sa.and_(calls.c.id.in_(ids), calls.c.recording_path.is_not(None))
    whose = (calls.c.tenant, calls.c.node, calls.c.id)
    named = await connection.execute(sa.select(*whose, calls.c.recording_path).where(where))
    found = dict.fromkeys((*row, "recording") for row in named)
    begun = sa.select(*whose, events.c.fields).join(events).where(where, events.c.kind == FILES[1])
    for *who, fields in await connection.execute(begun):
        if path := str(fields.get("path", "")):
            found[(*who, path, "recording")] = None
    return await _doom(connection, list(found), now, reason)


async def _doom_messages(connection: AsyncConnection, ids: Sequence[str], now: datetime, reason: str) -> int:
    query = sa.select(calls.c.tenant, calls.c.node, calls.c.id, events.c.fields).join(events)
    rows = await connection.execute(query.where(calls.c.id.in_(ids), events.c.kind == FILES[0]))
    found = [
        (tenant, node, call_id, str(fields.get("path", "")), "voicemail") for tenant, node, call_id, fields in rows
    ]
    return await _doom(connection, [each for each in found if each[3]], now, reason)


async def _doom(connection: AsyncConnection, files: Sequence[tuple[Any, ...]], now: datetime, reason: str) -> int:
    if files:
        await connection.execute(
            sa.insert(doomed_files),
            [
                {
                    **dict(zip(("tenant", "node", "call_id", "path", "kind"), file, strict=True)),
                    **{"reason": reason, "queued_at": now, "due_at": now, "attempts": 0},
                }
                for file in files
            ],
        )
    return len(files)
