"""Files that nobody refers to any more, until the machine that has them has deleted them. Refuses to touch files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime

import sqlalchemy as sa

from sipserver.store.database import Database
from sipserver.store.schema import calls, doomed_files


@dataclass(frozen=True, slots=True)
class Doomed:
    """One file. node: the machine that has it. kind: recording | voicemail. reason: retention | erasure. attempts: so
    many failed, the last one because of `error`.
    """

    number: int
    tenant: str
    node: str
    call_id: str
    kind: str
    path: str
    reason: str
    queued_at: datetime
    due_at: datetime
    attempts: int
    error: str | None


_COLUMNS = [doomed_files.c[field.name] for field in fields(Doomed)]


class DoomedFiles:
    """Loop thread. Safe to cancel. Raises SQLAlchemy's errors when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._engine = database.engine

    async def due(self, node: str, now: datetime, limit: int) -> Sequence[Doomed]:
        """Those of a machine whose turn it is, the first doomed first."""
        columns = doomed_files.c
        query = sa.select(*_COLUMNS).where(columns.node == node, columns.due_at <= now)
        return await self._rows(query.order_by(columns.due_at, columns.number).limit(limit))

    async def waiting(self, tenant: str = "", limit: int = 100) -> Sequence[Doomed]:
        """Of all machines, the first doomed first; of one tenant if it is named."""
        query = sa.select(*_COLUMNS).order_by(doomed_files.c.number).limit(limit)
        return await self._rows(query.where(doomed_files.c.tenant == tenant) if tenant else query)

    async def needed(self, file: Doomed) -> bool:
        """Whether another call refers to it."""
        query = sa.select(calls.c.id).where(calls.c.recording_path == file.path, calls.c.id != file.call_id).limit(1)
        async with self._engine.connect() as connection:
            return (await connection.execute(query)).first() is not None

    async def done(self, numbers: Sequence[int]) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(sa.delete(doomed_files).where(doomed_files.c.number.in_(numbers)))

    async def failed(self, file: Doomed, error: str, due_at: datetime) -> None:
        """It is tried again then."""
        change = sa.update(doomed_files).where(doomed_files.c.number == file.number)
        values = {"attempts": file.attempts + 1, "error": error[:256], "due_at": due_at}
        async with self._engine.begin() as connection:
            await connection.execute(change.values(**values))

    async def _rows(self, query: sa.Select[tuple[object, ...]]) -> list[Doomed]:
        async with self._engine.connect() as connection:
            return [Doomed(**row) for row in (await connection.execute(query)).mappings()]
