"""Rows of dialplans' versions: added one after the other, read, never changed. Refuses to know what a dialplan is.

Owns that of several who add the same number one alone succeeds, on whatever machine they are.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from sipserver.errors import Outdated
from sipserver.store.database import Database
from sipserver.store.schema import dialplan_versions as table


@dataclass(frozen=True, slots=True)
class Head:
    """A version without its text. digest: SHA-256 of the text, in hex; empty: the dialplan was deleted. at: aware."""

    tenant: str
    number: int
    name: str
    at: datetime
    actor: str
    digest: str


@dataclass(frozen=True, slots=True)
class VersionRow(Head):
    """One version. number: 1, 2, 3 ... for each tenant."""

    text: str


_HEAD = [column for column in table.c if column.name != "text"]


class VersionRows:
    """Loop thread. Safe to cancel. Raises SQLAlchemy's errors, or OSError, when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, *rows: VersionRow) -> None:
        """All or none. Raises Outdated when somebody else had one of the numbers first."""
        try:
            async with self._database.engine.begin() as connection:
                for row in rows:
                    await connection.execute(sa.insert(table).values(**asdict(row)))
        except IntegrityError:
            raise Outdated("somebody else has changed it meanwhile: read it again, and change that") from None

    async def newest(self, tenant: str, *, actor: str = "") -> VersionRow | None:
        """The last version; of an actor: the last one with a text that this actor made."""
        query = sa.select(table).where(table.c.tenant == tenant).order_by(table.c.number.desc()).limit(1)
        if actor:
            query = query.where(table.c.actor == actor, table.c.digest != "")
        async with self._database.engine.connect() as connection:
            found = (await connection.execute(query)).mappings().one_or_none()
        return None if found is None else VersionRow(**found)

    async def get(self, tenant: str, number: int) -> VersionRow | None:
        query = sa.select(table).where(table.c.tenant == tenant, table.c.number == number)
        async with self._database.engine.connect() as connection:
            found = (await connection.execute(query)).mappings().one_or_none()
        return None if found is None else VersionRow(**found)

    async def number_of(self, tenant: str, digest: str) -> int:
        """The last version with this text; 0: there is none."""
        query = sa.select(sa.func.max(table.c.number)).where(table.c.tenant == tenant, table.c.digest == digest)
        async with self._database.engine.connect() as connection:
            return int((await connection.execute(query)).scalar_one() or 0)

    async def history(self, tenant: str, *, before: int | None = None, limit: int = 50) -> list[Head]:
        """The newest first. before: a number, for the next page."""
        query = sa.select(*_HEAD).where(table.c.tenant == tenant).order_by(table.c.number.desc()).limit(limit)
        return await self._heads(query if before is None else query.where(table.c.number < before))

    async def heads(self) -> list[Head]:
        """The newest version of every tenant that has one."""
        last = (
            sa.select(table.c.tenant, sa.func.max(table.c.number).label("number")).group_by(table.c.tenant).subquery()
        )
        same = sa.and_(table.c.tenant == last.c.tenant, table.c.number == last.c.number)
        return await self._heads(sa.select(*_HEAD).join(last, same))

    async def _heads(self, query: sa.Select[tuple[object, ...]]) -> list[Head]:
        async with self._database.engine.connect() as connection:
            return [Head(**row) for row in (await connection.execute(query)).mappings()]
