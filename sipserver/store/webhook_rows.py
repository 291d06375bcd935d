"""Rows of webhooks: endpoints, messages, attempts. Owns the endpoints' table. Refuses to know signatures, URLs and
retries; the messages' tables are `webhook_queue`'s and `webhook_history`'s.

Secrets stand in the table in clear, for they sign what is sent: whoever reads the database can sign as we do. They are
left out of every repr.
"""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from sipserver.store.database import Database
from sipserver.store.schema import webhook_endpoints


@dataclass(frozen=True, slots=True)
class EndpointRow:
    """Where a tenant's events go. kinds: patterns; none: all. secret_before signs, too, until before_until. Disabled
    since disabled_at; None: enabled. dropped: messages that a full queue did not take. failures: attempts in a row that
    found the receiver away. Held since held_since, and tried at held_until; None: it is not. Moments are aware and in
    UTC.
    """

    id: str
    tenant: str
    url: str
    kinds: list[str]
    secret: str = field(repr=False)
    created_at: datetime
    secret_before: str | None = field(default=None, repr=False)
    before_until: datetime | None = None
    disabled_at: datetime | None = None
    disabled_reason: str | None = None
    dropped: int = 0
    failures: int = 0
    held_since: datetime | None = None
    held_until: datetime | None = None


class State(enum.StrEnum):
    """Of a message. DELIVERED, DEAD and TESTED are ends; only DEAD ones become PENDING again, by a replay."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    TESTED = "tested"


@dataclass(frozen=True, slots=True)
class MessageRow:
    """One event for one endpoint. id: the same at every attempt. lane: messages of one lane go out one after another,
    in the order of number. payload: JSON as it is sent; empty once it is delivered. queued_at: when it was published
    or replayed the last time; attempts: since then. error: why it is dead.
    """

    id: str
    endpoint_id: str
    tenant: str
    lane: str
    kind: str
    payload: str = field(repr=False)
    created_at: datetime
    queued_at: datetime
    number: int = 0
    state: State = State.PENDING
    attempts: int = 0
    settled_at: datetime | None = None
    error: str | None = None

    def new(self) -> dict[str, Any]:
        """The columns of a row that has no number yet."""
        row = asdict(self)
        del row["number"]
        return row


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One try. status: of HTTP; None: no answer, and error says why. answer: how the answer's body begins."""

    message_id: str
    endpoint_id: str
    tenant: str
    at: datetime
    status: int | None
    latency_ms: int
    error: str | None
    answer: str
    number: int = 0

    def new(self) -> dict[str, Any]:
        row = asdict(self)
        del row["number"]
        return row


def message(row: Any) -> MessageRow:
    """From a mapping of the columns."""
    return MessageRow(**{**row, "state": State(row["state"])})


Endpoints = list[EndpointRow]


class EndpointRows:
    """Loop thread. Safe to cancel. Raises SQLAlchemy's errors when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._engine = database.engine

    async def add(self, row: EndpointRow) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(sa.insert(webhook_endpoints).values(**asdict(row)))

    async def get(self, endpoint_id: str) -> EndpointRow | None:
        rows = await self._found(sa.select(webhook_endpoints).where(webhook_endpoints.c.id == endpoint_id))
        return rows[0] if rows else None

    async def list(self, tenant: str | None = None, *, enabled_only: bool = False) -> Endpoints:
        """The oldest first; of one tenant, or of all."""
        table = webhook_endpoints.c
        query = sa.select(webhook_endpoints).order_by(table.tenant, table.created_at, table.id)
        if tenant is not None:
            query = query.where(table.tenant == tenant)
        if enabled_only:
            query = query.where(table.disabled_at.is_(None))
        return await self._found(query)

    async def change(self, endpoint_id: str, **columns: Any) -> bool:
        """False when there is no such endpoint."""
        change = sa.update(webhook_endpoints).where(webhook_endpoints.c.id == endpoint_id).values(**columns)
        async with self._engine.begin() as connection:
            return (await connection.execute(change)).rowcount == 1

    async def dropped(self, endpoint_id: str, count: int) -> None:
        """So many messages more did not fit."""
        await self.change(endpoint_id, dropped=webhook_endpoints.c.dropped + count)

    async def delete(self, endpoint_id: str) -> bool:
        """With all its messages. False when there is no such endpoint."""
        gone = sa.delete(webhook_endpoints).where(webhook_endpoints.c.id == endpoint_id)
        async with self._engine.begin() as connection:
            return (await connection.execute(gone)).rowcount == 1

    async def _found(self, query: sa.Select[Any]) -> Endpoints:
        async with self._engine.connect() as connection:
            return [EndpointRow(**row) for row in (await connection.execute(query)).mappings()]
