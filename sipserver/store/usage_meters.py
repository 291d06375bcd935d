"""How much of what calls used was told as meter events. What is being told is written down before it is told, so that
it is told again with the same value when nobody knows whether it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from sipserver.store.database import Database
from sipserver.store.schema import UNMETERED, usage
from sipserver.store.usage_rows import UsageRow

AT_ONCE = 200
_KEYS = [column.name for column in usage.primary_key]
_FACTS = list(UsageRow.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class MeteredRow:
    """metered: of the quantity, what was told; metering: what is told when this is."""

    usage: UsageRow
    metered: int
    metering: int


class UsageMeters:
    """Loop thread. Safe to cancel. Raises SQLAlchemy's errors when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, tenants: Sequence[str]) -> Sequence[MeteredRow]:
        """The oldest AT_ONCE that are not told in full, to be told now; of calls that are over, as all usage is."""
        wanted = (
            sa.select(usage)
            .where(UNMETERED, usage.c.tenant.in_(tenants))
            .order_by(usage.c.at, usage.c.call_id)
            .limit(AT_ONCE)
        )
        begin = _one().where(usage.c.metering == usage.c.metered).values(metering=usage.c.quantity)
        async with self._database.engine.begin() as connection:
            found = [dict(row) for row in (await connection.execute(wanted)).mappings()]
            if fresh := [_named(row) for row in found if row["metering"] == row["metered"]]:
                await connection.execute(begin, fresh)
        if not found:
            return []
        keys = [tuple(row[name] for name in _KEYS) for row in found]
        claimed = sa.select(usage).where(
            sa.tuple_(*(usage.c[name] for name in _KEYS)).in_(keys), usage.c.metering > usage.c.metered
        )
        async with self._database.engine.connect() as connection:
            rows = (await connection.execute(claimed)).mappings()
            return [
                MeteredRow(UsageRow(**{name: row[name] for name in _FACTS}), row["metered"], row["metering"])
                for row in rows
            ]

    async def told(self, rows: Sequence[MeteredRow]) -> None:
        """They need not be told again."""
        done = _one().where(usage.c.metered == sa.bindparam("was")).values(metered=sa.bindparam("now"))
        async with self._database.engine.begin() as connection:
            await connection.execute(
                done,
                [
                    {f"of_{name}": getattr(row.usage, name) for name in _KEYS}
                    | {"was": row.metered, "now": row.metering}
                    for row in rows
                ],
            )


def _one() -> sa.Update:
    return sa.update(usage).where(*(usage.c[name] == sa.bindparam(f"of_{name}") for name in _KEYS))


def _named(row: Mapping[str, Any]) -> dict[str, Any]:
    return {f"of_{name}": row[name] for name in _KEYS}
