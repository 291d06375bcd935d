"""One database: the engine, SQLite's settings, the schema at its newest version.

Owns how a connection is made and what a failure means. Refuses to know calls.
SQLite runs in WAL mode: readers in other processes never wait for the writer, and what was committed survives a killed
process (synchronous=NORMAL: a power cut may cost the last transactions, never the file).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from sipserver.errors import SettingsError
from sipserver.store import migrations

BUSY_TIMEOUT_MS = 2_000


class Database:
    """Loop thread; statements run on the driver's own threads. `open` before use, `close` after."""

    def __init__(self, url: str) -> None:
        """Raises SettingsError for a URL that names no driver."""
        try:
            self._url = sa.make_url(url)
            self.engine: AsyncEngine = create_async_engine(self._url, json_serializer=_json, pool_pre_ping=False)
        except (ArgumentError, NoSuchModuleError, ImportError) as problem:
            raise SettingsError(f"not a database that can be used: {problem}", key="store.url") from problem
        if self.is_sqlite:
            event.listen(self.engine.sync_engine, "connect", _configure)

    @property
    def is_sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    @property
    def file(self) -> Path | None:
        """The file of an SQLite database; None for servers and for `:memory:`."""
        name = self._url.database
        return Path(name) if self.is_sqlite and name and name != ":memory:" else None

    async def open(self) -> None:
        """Make the folder and the tables where they are missing. Raises SettingsError when that cannot be done."""
        try:
            if self.file is not None:
                self.file.parent.mkdir(parents=True, exist_ok=True)
            async with self.engine.begin() as connection:
                await connection.run_sync(migrations.apply)
        except (SQLAlchemyError, OSError) as problem:
            await self.close()
            raise SettingsError(f"the call records cannot be opened: {brief(problem)}", key="store.url") from problem
        except SettingsError:
            await self.close()
            raise

    async def open_to_read(self) -> None:
        """Change nothing. Raises SettingsError when there is no database or it has another version."""
        try:
            if self.file is not None and not self.file.exists():
                raise SettingsError(f"there are no call records yet in {self.file}", key="store.url")
            async with self.engine.connect() as connection:
                present = await connection.run_sync(migrations.version)
            if present != migrations.HEAD:
                raise SettingsError(
                    f"the call records have version {present}, this program reads {migrations.HEAD}", key="store.url"
                )
        except (SQLAlchemyError, OSError) as problem:
            await self.close()
            raise SettingsError(f"the call records cannot be opened: {brief(problem)}", key="store.url") from problem
        except SettingsError:
            await self.close()
            raise

    async def close(self) -> None:
        """Close all connections and their threads. Idempotent."""
        await self.engine.dispose()


def brief(problem: BaseException) -> str:
    """What the database said, without the statement and its private values."""
    if isinstance(problem, DBAPIError):
        return f"{type(problem.orig).__name__}: {problem.orig}"
    return f"{type(problem).__name__}: {problem}"


def _json(value: Any) -> str:
    """Escaped to ASCII, so that half characters survive; without NUL, which PostgreSQL keeps in no text."""
    return json.dumps(_without_nul(value), default=str)


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd")
    if isinstance(value, dict):
        return {key: _without_nul(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nul(each) for each in value]
    return value


def _configure(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        "journal_mode = WAL",
        "synchronous = NORMAL",
        "foreign_keys = ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
