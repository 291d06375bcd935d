"""One database: the engine, the settings of its connections, the schema at its newest version.

Owns how a connection is made and what a failure means. Refuses to know calls.
SQLite runs in WAL mode: readers in other processes never wait for the writer, and what was committed survives a killed
process (synchronous=NORMAL: a power cut may cost the last transactions, never the file).
PostgreSQL is asked before a connection from the pool is used again, so a server that was restarted is not noticed; one
that does not answer is given up in time.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from sipserver.errors import SettingsError
from sipserver.store import migrations
from sipserver.store.settings import StoreSettings
from sipserver.store.sqlite_driver import Drivers

CONNECT_S = 5.0
ANSWER_S = 5.0
DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}

UNAVAILABLE = (SQLAlchemyError, OSError, TypeError, ValueError)
"""What a driver may raise while it connects or works: OSError with TimeoutError; the last two for odd options."""

_REFUSALS = {
    "28P01": "PostgreSQL refuses the password of {user}: put it into the environment variable {password_env}",
    "28000": "PostgreSQL does not let {user} in: allow it in pg_hba.conf, or name another user in the URL",
    "3D000": "PostgreSQL has no database {database}: make it with `createdb -O {user} {database}`",
    "42501": "{user} may not make tables in {database}: run `ALTER DATABASE {database} OWNER TO {user}`",
}
"""By SQLSTATE (PostgreSQL, appendix A): what is wrong and what helps."""


class DatabaseAway(SettingsError):
    """Nobody answers now; later somebody may."""

    retry = True
    http_code = 503


class Database:
    """Loop thread; SQLite's statements run on the driver's own threads. `open` before use, `close` after.

    connections: at most so many to a server, and as many again for reading; one more that is asked for waits. engine:
    for all that writes. reading: for single statements that read; at a server they are no transactions, which spares
    most of what such a statement costs.
    """

    def __init__(self, settings: StoreSettings, *, connections: int = 2) -> None:
        """Raises SettingsError for a URL that names no driver."""
        self._drivers = Drivers()
        try:
            self._url = _url(settings)
            self._password_env = settings.password_env
            options = {"connect_args": {"async_creator_fn": self._drivers.connect}}
            self.engine: AsyncEngine = create_async_engine(
                self._url,
                json_serializer=_json,
                hide_parameters=True,
                **(options if self.is_sqlite else _pool(connections)),
            )
            self.reading = self.engine if self.is_sqlite else self._reading(connections)
        except (ArgumentError, NoSuchModuleError, ImportError, ValueError) as problem:
            raise SettingsError(f"not a database that can be used: {problem}", key="store.url") from problem

    def _reading(self, connections: int) -> AsyncEngine:
        return create_async_engine(
            self._url,
            json_serializer=_json,
            hide_parameters=True,
            isolation_level="AUTOCOMMIT",
            pool_reset_on_return=None,
            **_pool(connections),
        )

    @property
    def is_sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    @property
    def file(self) -> Path | None:
        """The file of an SQLite database; None for servers and for `:memory:`."""
        name = self._url.database
        return Path(name) if self.is_sqlite and name and name != ":memory:" else None

    async def open(self) -> None:
        """Make the folder and the tables where they are missing; several processes may do so at the same moment.

        Raises DatabaseAway when the server does not answer, SettingsError when it cannot be used as it is.
        """
        try:
            if self.file is not None:
                self.file.parent.mkdir(parents=True, exist_ok=True)
            await self._migrate()
        except SettingsError:
            await self.close()
            raise
        except UNAVAILABLE as problem:
            await self.close()
            raise self._refusal(problem) from problem

    async def _migrate(self) -> None:
        """On a connection of its own where the usual ones give a statement little time: a large table needs more."""
        if self.is_sqlite:
            async with self.engine.begin() as connection:
                await connection.run_sync(migrations.apply)
            return
        async with self.engine.connect() as connection:
            if await connection.run_sync(migrations.version) == migrations.HEAD:
                return
        patient = create_async_engine(self._url, poolclass=sa.NullPool, connect_args={"timeout": CONNECT_S})
        async with patient.begin() as connection:
            await connection.run_sync(migrations.apply)

    async def open_to_read(self) -> None:
        """Change nothing. Raises SettingsError when there is no database or it has another version."""
        if self.file is not None and not self.file.exists():
            await self.close()
            raise SettingsError(f"there are no call records yet in {self.file}", key="store.url")
        present = await self.version()
        if present != migrations.HEAD:
            await self.close()
            raise SettingsError(
                f"the call records have version {present}, this program reads {migrations.HEAD}", key="store.url"
            )

    async def version(self) -> str | None:
        """Of the tables; None where there are none yet. Raises SettingsError (DatabaseAway), everything closed."""
        if self.file is not None and not self.file.exists():
            return None
        try:
            async with self.reading.connect() as connection:
                return await connection.run_sync(migrations.version)
        except UNAVAILABLE as problem:
            await self.close()
            raise self._refusal(problem) from problem

    async def answers(self, within_s: float) -> bool:
        """Whether it can be read now."""
        try:
            async with asyncio.timeout(within_s), self.engine.connect() as connection:
                await connection.execute(sa.select(1))
        except UNAVAILABLE:
            return False
        return True

    async def clock_ahead(self) -> timedelta | None:
        """How far this machine's clock is ahead of the server's; None: it is the same machine's. Raises SQLAlchemy's
        errors.
        """
        if self.is_sqlite:
            return None
        async with self.reading.connect() as connection:
            there: datetime = (await connection.execute(sa.text("SELECT clock_timestamp()"))).scalar_one()
        return datetime.now(UTC) - there

    async def close(self) -> None:
        """Close all connections and their threads. Idempotent."""
        await self.engine.dispose()
        if self.reading is not self.engine:
            await self.reading.dispose()
        await self._drivers.gone()

    def _refusal(self, problem: BaseException) -> SettingsError:
        """What the operator is told. The URL and what the driver says are shown without the password."""
        said = brief(problem)
        if self._url.password:
            said = said.replace(str(self._url.password), "***")
        if self.is_sqlite:
            return SettingsError(f"the call records cannot be opened: {said}", key="store.url")
        if remedy := _REFUSALS.get(sqlstate(problem)):
            told = remedy.format(user=self._url.username, database=self._url.database, password_env=self._password_env)
            return SettingsError(f"{told} ({said})", key="store.url")
        if is_away(problem):
            where = f"{self._url.host or 'localhost'}:{self._url.port or 5432}"
            return DatabaseAway(f"PostgreSQL does not answer at {where}: is it running? ({said})", key="store.url")
        return SettingsError(f"the call records cannot be opened: {said}", key="store.url")


def brief(problem: BaseException) -> str:
    """What the database said, without the statement and its private values."""
    cause: BaseException | None = problem
    if isinstance(problem, DBAPIError) and problem.orig is not None:
        cause = problem.orig.__cause__ or problem.orig
    return f"{type(cause).__name__}: {cause}".removesuffix(": ")


def sqlstate(problem: BaseException) -> str:
    """PostgreSQL's code of the error; empty if there is none."""
    origin = problem.orig if isinstance(problem, DBAPIError) else problem
    return str(getattr(origin, "sqlstate", None) or "")


def is_trouble(problem: BaseException) -> bool:
    """Whether it came from the database or the way to it."""
    return isinstance(problem, (SQLAlchemyError, OSError, TimeoutError))


def is_away(problem: BaseException) -> bool:
    """Whether the server cannot be reached or takes nobody now (classes 08, 53 and 57), rather than refuses us."""
    if isinstance(problem, DBAPIError) and problem.connection_invalidated:
        return True
    return isinstance(problem, OSError) or sqlstate(problem)[:2] in ("08", "53", "57")


def _url(settings: StoreSettings) -> sa.URL:
    url = sa.make_url(settings.url)
    url = url.set(drivername=DRIVERS.get(url.drivername, url.drivername))
    if url.get_backend_name() == "postgresql":
        if password := os.environ.get(settings.password_env):
            url = url.set(password=password)
        if mode := url.query.get("sslmode"):  # libpq's name of it
            url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    return url


def _pool(connections: int) -> dict[str, Any]:
    """jit: planning costs more than it saves here. A writer that hangs within a transaction must not keep its locks."""
    settings = {"application_name": "sipserver", "jit": "off", "idle_in_transaction_session_timeout": "10000"}
    return {
        "pool_size": connections,
        "max_overflow": 0,
        "pool_pre_ping": True,
        "connect_args": {"timeout": CONNECT_S, "command_timeout": ANSWER_S, "server_settings": settings},
    }


@asynccontextmanager
async def opened_to_read(settings: StoreSettings, *, connections: int = 1) -> AsyncIterator[Database]:
    """For programs beside the server. Creates and migrates nothing; raises SettingsError."""
    database = Database(settings, connections=connections)
    try:
        await database.open_to_read()
        yield database
    finally:
        await database.close()


def _json(value: Any) -> str:
    """Escaped to ASCII, so that half characters survive; without NUL and NaN, which PostgreSQL does not keep."""
    text = json.dumps(value, default=str)
    if "\\u0000" in text or "NaN" in text or "Infinity" in text:
        return json.dumps(_fit(value), default=str)
    return text


def _fit(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _fit(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_fit(each) for each in value]
    return value
