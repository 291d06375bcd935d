"""The queue of webhooks' messages: what waits, who delivers it now, what came of it.

Owns the order and the leases. A lane is what has to be in order: one endpoint's messages of one call. It has a row
while messages of it wait; a process claims the row for a time, and only who has it sends the lane's first message.
Refuses to know HTTP, and when something is tried again: it is told.

Every transaction writes the lane before it looks at messages, so that what is published meanwhile is never overlooked:
the row is locked, and its publisher waits or has committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from sipserver.store.database import Database
from sipserver.store.schema import PENDING, webhook_attempts, webhook_endpoints, webhook_lanes, webhook_messages
from sipserver.store.webhook_rows import AttemptRow, EndpointRow, MessageRow, State, message

BATCH = 200
"""Messages a transaction: building one holds the loop up for some milliseconds."""


@dataclass(frozen=True, slots=True)
class Head:
    """The first message of a lane, and where it goes."""

    message: MessageRow
    endpoint: EndpointRow


@dataclass(frozen=True, slots=True)
class Claim:
    """A lane that is ours until its lease ends. lease: names this claim of it; a later one has another. head: what was
    its first message then. probe: that finds out whether the receiver of an endpoint that is held is back.
    """

    lane_id: int
    endpoint_id: str
    tenant: str
    lane: str
    lease: str
    head: Head | None = None
    probe: bool = False


class EndpointGone(Exception):
    """Messages for an endpoint that was deleted meanwhile."""


class WebhookQueue:
    """Loop thread. Safe to cancel: what was begun is undone. Raises SQLAlchemy's errors when the database does not
    answer. `now` is always the caller's: aware, and alike on all machines within some seconds.
    """

    def __init__(self, database: Database) -> None:
        self._engine, self._reading = database.engine, database.reading
        # SQLite has one writer at a time; ours wait here in line rather than at the file, where waiting is not fair.
        self._turn = asyncio.Lock() if database.is_sqlite else contextlib.nullcontext()

    @contextlib.asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        async with self._turn, self._engine.begin() as connection:
            yield connection

    async def add(self, rows: Sequence[MessageRow], now: datetime) -> None:
        """In this order. A message whose id is known already is left as it is. Raises EndpointGone; some of the
        messages may be in the queue then.
        """
        try:
            for start in range(0, len(rows), BATCH):
                await self._add(rows[start : start + BATCH], now)
        except IntegrityError as problem:  # the only rule that remains to be broken
            raise EndpointGone from problem

    async def _add(self, rows: Sequence[MessageRow], now: datetime) -> None:
        async with self._transaction() as connection:
            await open_lanes(connection, rows, now)
            put = _insert(connection, webhook_messages).on_conflict_do_nothing(index_elements=["id"])
            await connection.execute(put, [row.new() for row in rows])

    async def claim(self, now: datetime, until: datetime, *, most: int, per_tenant: int) -> tuple[list[Claim], bool]:
        """Lanes that are due and that nobody has, for at most `most` in all; those that wait longest first, and none of
        an endpoint that is held. A tenant never has more than per_tenant lanes claimed, all processes together; two
        that claim at the same moment may exceed it once. And whether bounds may have kept some of them waiting.
        """
        lanes = webhook_lanes.c
        held = sa.select(webhook_endpoints.c.id).where(webhook_endpoints.c.held_until.is_not(None))
        free = sa.and_(lanes.due_at <= now, _unclaimed(now), lanes.endpoint_id.not_in(held))
        busy = (
            sa.select(lanes.tenant, sa.func.count().label("count"))
            .where(lanes.leased_until > now)
            .group_by(lanes.tenant)
            .subquery()
        )
        due = sa.select(lanes.tenant, sa.func.min(lanes.due_at).label("due_at")).where(free).group_by(lanes.tenant)
        waiting = due.subquery()
        running = sa.func.coalesce(busy.c.count, 0)
        query = (
            sa.select(waiting.c.tenant, running)
            .outerjoin_from(waiting, busy, busy.c.tenant == waiting.c.tenant)
            .order_by(running >= per_tenant, waiting.c.due_at)
            .limit(most + 1)
        )
        async with self._reading.connect() as connection:
            tenants = (await connection.execute(query)).all()
        claims: list[Claim] = []
        more = False
        for tenant, count in tenants:
            room = min(per_tenant - count, most - len(claims))
            taken = await self._claim_of(tenant, room, free, until) if room > 0 else []
            more = more or room <= 0 or len(taken) == room
            claims += taken
        return claims, more

    async def _claim_of(self, tenant: str, room: int, free: sa.ColumnElement[bool], until: datetime) -> list[Claim]:
        lanes, lease = webhook_lanes.c, secrets.token_hex(16)
        chosen = (
            sa.select(lanes.id)
            .where(lanes.tenant == tenant, free)
            .order_by(lanes.due_at, lanes.id)
            .limit(room)
            .with_for_update(skip_locked=True)
            .cte()
        )
        take = (
            sa.update(webhook_lanes)
            .where(lanes.id.in_(sa.select(chosen.c.id)))
            .values(lease=lease, leased_until=until)
            .returning(lanes.id, lanes.endpoint_id, lanes.name)
        )
        async with self._transaction() as connection:
            taken = [Claim(row[0], row[1], tenant, row[2], lease) for row in await connection.execute(take)]
            return [replace(claim, head=await _head(connection, claim)) for claim in taken]

    async def claim_probe(self, endpoint: EndpointRow, now: datetime, until: datetime) -> Claim | None:
        """The lane of an endpoint that is held whose turn it is, due or not: those that were tried are last. None:
        nothing waits, or others are still at it.
        """
        free = sa.and_(webhook_lanes.c.endpoint_id == endpoint.id, _unclaimed(now))
        claims = await self._claim_of(endpoint.tenant, 1, free, until)
        return replace(claims[0], probe=True) if claims else None

    async def head(self, claim: Claim, until: datetime) -> Head | None:
        """The message to send now, the lease prolonged. None: nothing waits, and the lane is gone; or it is no longer
        ours.
        """
        async with self._transaction() as connection:
            return await _head(connection, claim) if await _hold(connection, claim, leased_until=until) else None

    async def settle(
        self,
        claim: Claim,
        attempt: AttemptRow,
        state: State,
        *,
        until: datetime,
        due_at: datetime | None = None,
        error: str | None = None,
        counts: bool = True,
    ) -> Head | None:
        """Write down what came of an attempt at the lane's first message, and give the next one. counts: it is one of
        those that the message has.

        state PENDING: the lane rests until due_at, and is nobody's. An acknowledgement counts even if the lane was lost
        or the message given up meanwhile; anything else is then left to who has it now.
        """
        messages = webhook_messages.c
        async with self._transaction() as connection:
            held = await _hold(connection, claim, leased_until=until)
            change: dict[str, Any] = {"attempts": messages.attempts + int(counts), "state": state, "error": error}
            if state is not State.PENDING:
                change["settled_at"] = attempt.at
            if state is State.DELIVERED:
                change["payload"] = ""
            open_still = messages.state.in_((State.PENDING, State.DEAD)) if state is State.DELIVERED else PENDING
            mine = sa.update(webhook_messages).where(messages.id == attempt.message_id, open_still)
            waited = False
            if held or state is State.DELIVERED:
                waited = (await connection.execute(mine.values(**change))).rowcount == 1
            if not waited and not await _is_there(connection, attempt.message_id):
                return None  # the endpoint was deleted meanwhile, with all that belonged to it
            await connection.execute(sa.insert(webhook_attempts).values(attempt.new()))
            if not held or state is not State.PENDING:
                return await _head(connection, claim) if held else None
            # Acknowledged or parked by another process meanwhile: what is behind it need not rest.
            await _release(connection, claim, due_at if waited and due_at else attempt.at)
            return None

    async def release(self, claim: Claim, now: datetime) -> None:
        """Anybody may have the lane at once, after those that are due already."""
        async with self._transaction() as connection:
            await _release(connection, claim, now)

    async def hurry(self, endpoint_id: str, now: datetime) -> None:
        """What rests between two attempts is due: its receiver was mended."""
        lanes = webhook_lanes.c
        change = (
            sa.update(webhook_lanes)
            .where(lanes.endpoint_id == endpoint_id, lanes.due_at > now, _unclaimed(now))
            .values(due_at=now)
        )
        async with self._transaction() as connection:
            await connection.execute(change)

    async def park(self, endpoint_id: str, now: datetime, reason: str, *, before: datetime | None = None) -> int:
        """All that waits for an endpoint becomes dead letters; its lanes go when they are claimed next. before: only
        what was queued before that moment.
        """
        old = webhook_messages.c.queued_at < before if before is not None else sa.true()
        change = (
            sa.update(webhook_messages)
            .where(webhook_messages.c.endpoint_id == endpoint_id, PENDING, old)
            .values(state=State.DEAD, settled_at=now, error=reason)
        )
        async with self._transaction() as connection:
            return (await connection.execute(change)).rowcount

    async def waiting(self, endpoint_id: str) -> int:
        """How many messages wait for an endpoint."""
        query = (
            sa.select(sa.func.count())
            .select_from(webhook_messages)
            .where(webhook_messages.c.endpoint_id == endpoint_id, PENDING)
        )
        async with self._engine.connect() as connection:
            return int(await connection.scalar(query) or 0)


async def open_lanes(connection: AsyncConnection, rows: Sequence[MessageRow], now: datetime) -> None:
    """The lanes of messages that are about to wait, locked until the transaction ends; always in the same order, so
    that two do not wait for one another. A lane that is there keeps its pause and its owner.
    """
    lanes = {(row.endpoint_id, row.lane): row.tenant for row in rows}
    values = [
        {"endpoint_id": endpoint_id, "name": name, "tenant": lanes[endpoint_id, name], "due_at": now}
        for endpoint_id, name in sorted(lanes)
    ]
    put = _insert(connection, webhook_lanes)
    locked = {"name": put.excluded.name}
    await connection.execute(put.on_conflict_do_update(index_elements=["endpoint_id", "name"], set_=locked), values)


def _unclaimed(now: datetime) -> sa.ColumnElement[bool]:
    lanes = webhook_lanes.c
    return sa.or_(lanes.leased_until.is_(None), lanes.leased_until <= now)


async def _hold(connection: AsyncConnection, claim: Claim, **values: Any) -> bool:
    """Write and thereby lock the lane. False: it is not ours any more."""
    lanes = webhook_lanes.c
    mine = sa.update(webhook_lanes).where(lanes.id == claim.lane_id, lanes.lease == claim.lease)
    return (await connection.execute(mine.values(**values))).rowcount == 1


async def _release(connection: AsyncConnection, claim: Claim, due_at: datetime) -> None:
    await _hold(connection, claim, lease=None, leased_until=None, due_at=due_at)


async def _head(connection: AsyncConnection, claim: Claim) -> Head | None:
    """Of a lane that is locked."""
    messages = webhook_messages.c
    query = (
        sa.select(webhook_messages, webhook_endpoints)
        .join(webhook_endpoints, webhook_endpoints.c.id == messages.endpoint_id)
        .where(messages.endpoint_id == claim.endpoint_id, messages.lane == claim.lane, PENDING)
        .order_by(messages.number)
        .limit(1)
    )
    first = (await connection.execute(query)).first()
    if first is None:
        await connection.execute(sa.delete(webhook_lanes).where(webhook_lanes.c.id == claim.lane_id))
        return None
    count = len(webhook_messages.c)
    names, values = list(webhook_messages.c.keys()), tuple(first)
    endpoint = dict(zip(webhook_endpoints.c.keys(), values[count:], strict=True))
    return Head(message(dict(zip(names, values[:count], strict=True))), EndpointRow(**endpoint))


async def _is_there(connection: AsyncConnection, message_id: str) -> bool:
    query = sa.select(webhook_messages.c.number).where(webhook_messages.c.id == message_id)
    return await connection.scalar(query) is not None


def _insert(connection: AsyncConnection, table: sa.Table) -> Any:
    """INSERT ... ON CONFLICT, which each dialect has for itself and both write alike."""
    return (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)
