"""What became of webhooks' messages: attempts, dead letters, their replay, and how long all that is kept.

Refuses to deliver: what is replayed waits in the queue again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from sipserver.store.database import Database
from sipserver.store.schema import webhook_attempts, webhook_messages
from sipserver.store.webhook_queue import BATCH, open_lanes
from sipserver.store.webhook_rows import AttemptRow, MessageRow, State, message


@dataclass(frozen=True, slots=True)
class Kept:
    """Of an endpoint: how many messages wait, how many are dead letters, and when the oldest that waits was queued."""

    waiting: int = 0
    dead: int = 0
    oldest: datetime | None = None


class WebhookHistory:
    """Loop thread. Safe to cancel. Raises SQLAlchemy's errors when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._engine = database.engine

    async def message(self, message_id: str) -> MessageRow | None:
        rows = await self._messages(sa.select(webhook_messages).where(webhook_messages.c.id == message_id))
        return rows[0] if rows else None

    async def messages(
        self, endpoint_id: str, state: State, *, limit: int = 100, after: int = 0
    ) -> Sequence[MessageRow]:
        """In the order in which they were published; further pages follow the last number of the one before."""
        columns = webhook_messages.c
        query = (
            sa.select(webhook_messages)
            .where(columns.endpoint_id == endpoint_id, columns.state == state, columns.number > after)
            .order_by(columns.number)
            .limit(limit)
        )
        return await self._messages(query)

    async def kept(self) -> Mapping[str, Kept]:
        """By endpoint, of those for which anything waits or is dead."""
        columns = webhook_messages.c
        counted = sa.func.count().label("count")
        query = (
            sa.select(columns.endpoint_id, columns.state, counted, sa.func.min(columns.queued_at).label("oldest"))
            .where(columns.state.in_((State.PENDING, State.DEAD)))
            .group_by(columns.endpoint_id, columns.state)
        )
        found: dict[str, Kept] = {}
        async with self._engine.connect() as connection:
            for row in await connection.execute(query):
                kept = found.get(row.endpoint_id, Kept())
                waits = row.state == State.PENDING
                count: int = row[2]
                change = {"waiting": count, "oldest": row.oldest} if waits else {"dead": count}
                found[row.endpoint_id] = replace(kept, **change)
        return found

    async def attempts(
        self, endpoint_id: str, *, message_id: str | None = None, limit: int = 100, before: int | None = None
    ) -> Sequence[AttemptRow]:
        """The newest first; further pages precede the last number of the one before."""
        columns = webhook_attempts.c
        query = sa.select(webhook_attempts).where(columns.endpoint_id == endpoint_id)
        if message_id is not None:
            query = query.where(columns.message_id == message_id)
        if before is not None:
            query = query.where(columns.number < before)
        async with self._engine.connect() as connection:
            rows = await connection.execute(query.order_by(columns.number.desc()).limit(limit))
            return [AttemptRow(**row) for row in rows.mappings()]

    async def tested(self, row: MessageRow, attempt: AttemptRow) -> None:
        """Keep a message that was sent beside the queue, and what came of it."""
        async with self._engine.begin() as connection:
            await connection.execute(sa.insert(webhook_messages).values(row.new()))
            await connection.execute(sa.insert(webhook_attempts).values(attempt.new()))

    async def replay(self, endpoint_id: str, now: datetime, condition: str | datetime) -> int:
        """Dead letters of an endpoint wait again, with a whole new schedule: one by its id, or all that were published
        since a moment. Returns how many. They go before what waits in their lanes, for they are older.
        """
        columns = webhook_messages.c
        chosen = columns.id == condition if isinstance(condition, str) else columns.created_at >= condition
        again, after = 0, 0
        while True:
            query = (
                sa.select(webhook_messages)
                .where(columns.endpoint_id == endpoint_id, columns.state == State.DEAD, chosen, columns.number > after)
                .order_by(columns.number)
                .limit(BATCH)
            )
            part = await self._messages(query)
            if not part:
                return again
            after = part[-1].number
            async with self._engine.begin() as connection:
                await open_lanes(connection, part, now)
                change = sa.update(webhook_messages).where(
                    columns.number.in_([row.number for row in part]), columns.state == State.DEAD
                )
                values = {"state": State.PENDING, "attempts": 0, "queued_at": now, "settled_at": None, "error": None}
                again += (await connection.execute(change.values(**values))).rowcount

    async def delete_older_than(self, moment: datetime) -> int:
        """Messages that were settled before the moment, with their attempts. Returns how many messages."""
        columns, gone = webhook_messages.c, 0
        oldest = sa.select(columns.number).where(columns.settled_at < moment).limit(BATCH).scalar_subquery()
        while True:
            async with self._engine.begin() as connection:
                count = (
                    await connection.execute(sa.delete(webhook_messages).where(columns.number.in_(oldest)))
                ).rowcount
            gone += count
            if count < BATCH:
                return gone

    async def _messages(self, query: sa.Select[Any]) -> list[MessageRow]:
        async with self._engine.connect() as connection:
            return [message(row) for row in (await connection.execute(query)).mappings()]
