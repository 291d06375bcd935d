"""How the database is opened: SQLite's settings, text that PostgreSQL would refuse, drivers that are missing."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa

from sipserver.errors import SettingsError
from sipserver.store.database import Database, brief
from sipserver.store.reader import open_reader
from sipserver.store.records import Records
from sipserver.store.schema import UtcDateTime
from sipserver.store.settings import StoreSettings
from tests.fakes.told import start


async def test_sqlite_runs_in_wal_mode_with_foreign_keys_and_patience(tmp_path: Path) -> None:
    database = Database(StoreSettings(url=f"sqlite+aiosqlite:///{tmp_path}/deep/down/records.db"))
    await database.open()
    async with database.engine.connect() as connection:
        found = [
            (await connection.execute(sa.text(f"PRAGMA {name}"))).scalar()
            for name in ("journal_mode", "foreign_keys", "busy_timeout", "synchronous")
        ]
    assert found == ["wal", 1, 2000, 1]
    assert database.file == tmp_path / "deep/down/records.db"
    await database.close()


async def test_a_new_file_is_opened_by_several_at_the_same_moment(tmp_path: Path) -> None:
    async def look(database: Database) -> None:
        for _ in range(6):
            async with database.engine.connect() as connection:
                await connection.execute(sa.text("SELECT count(*) FROM sqlite_master"))

    for number in range(40):  # without patience about one in ten of these fails
        settings = StoreSettings(url=f"sqlite+aiosqlite:///{tmp_path}/{number}.db")
        opened = [Database(settings) for _ in range(5)]
        await asyncio.gather(opened[0].open(), *map(look, opened[1:]))
        for database in opened:
            await database.close()


@pytest.mark.parametrize("turns", [3, 20], ids=["while it connects", "while it waits for a lock"])
async def test_no_thread_of_a_cancelled_statement_outlives_the_database(
    sqlite_settings: StoreSettings, turns: int
) -> None:
    before = set(threading.enumerate())
    database = Database(sqlite_settings)
    await database.open()
    await database.engine.dispose()

    async def write() -> None:
        async with database.engine.begin() as connection:
            await connection.execute(sa.text("DELETE FROM calls"))

    assert database.file is not None
    with contextlib.closing(sqlite3.connect(database.file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writing = asyncio.create_task(write())
        for _ in range(turns):
            await asyncio.sleep(0)
        assert not writing.done()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        await database.close()
    left = [thread for thread in threading.enumerate() if thread not in before and "_connection_worker" in thread.name]
    assert not left


async def test_a_database_in_memory_needs_no_file() -> None:
    records = Records(StoreSettings(url="sqlite+aiosqlite:///:memory:"))
    await records.open()
    start(records)
    assert await records.flush()
    assert [call.id for call in await records.list()] == ["c1"]
    await records.close()


def test_a_server_whose_driver_is_missing_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="psycopg9"):
        Database(StoreSettings(url="postgresql+psycopg9://localhost/sipserver"))


async def test_a_file_that_is_no_database_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "records.db").write_bytes(b"something else entirely" * 100)
    with pytest.raises(SettingsError, match="cannot be opened: DatabaseError: file is not a database"):
        async with open_reader(StoreSettings(url=f"sqlite+aiosqlite:///{tmp_path}/records.db")):
            pass


def test_what_a_database_says_is_told_without_the_statement() -> None:
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection, pytest.raises(sa.exc.OperationalError) as caught:
        connection.execute(sa.text("SELECT secret FROM nowhere WHERE phone = :phone"), {"phone": "+4930123"})
    engine.dispose()
    assert brief(caught.value) == "OperationalError: no such table: nowhere"
    assert brief(ValueError("x")) == "ValueError: x"


async def test_no_error_repeats_what_was_to_be_written(sqlite_settings: StoreSettings) -> None:
    """Tracebacks go to the log."""
    database = Database(sqlite_settings)
    await database.open()
    for engine in (database.engine, database.reading):
        async with engine.connect() as connection:
            with pytest.raises(sa.exc.OperationalError) as caught:
                await connection.execute(sa.text("SELECT 1 FROM nowhere WHERE phone = :phone"), {"phone": "+4930123"})
        assert "+4930123" not in str(caught.value)
    await database.close()


def test_moments_are_kept_in_utc() -> None:
    table = sa.Table("moments", sa.MetaData(), sa.Column("at", UtcDateTime))
    engine = sa.create_engine("sqlite://")
    noon = datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(table.insert(), [{"at": noon}, {"at": None}])
        assert connection.execute(sa.select(table)).scalars().all() == [noon, None]
        assert connection.execute(sa.text("SELECT at FROM moments")).scalars().first() == "2026-07-01 10:00:00.000000"
        assert connection.execute(sa.select(table).where(table.c.at == noon)).scalar() == noon.astimezone(UTC)
    engine.dispose()


async def test_nested_fields_lose_only_what_postgresql_does_not_keep(store_settings: StoreSettings) -> None:
    database = Database(store_settings)
    await database.open()
    table = sa.Table("documents", sa.MetaData(), sa.Column("fields", sa.JSON))
    kept = {"a": ["x\x00y", ("z", 1)], "path": Path("/r"), "escaped": "\\u0000", "none": None, "odd": float("nan")}
    async with database.engine.begin() as connection:
        await connection.run_sync(table.create)
        await connection.execute(table.insert(), [{"fields": kept}, {"fields": {"half": "\udc80", "NaN": 1}}])
        first, second = (await connection.execute(sa.select(table))).scalars()
    assert first == {"a": ["x\ufffdy", ["z", 1]], "path": "/r", "escaped": "\\u0000", "none": None, "odd": None}
    assert second == {"half": "\udc80", "NaN": 1}
    await database.close()


async def test_a_reader_sees_what_a_writer_has_committed_while_it_writes_on(sqlite_settings: StoreSettings) -> None:
    records = Records(sqlite_settings)
    await records.open()
    start(records)
    await records.flush()
    file = sqlite_settings.url.removeprefix("sqlite+aiosqlite:///")
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        async with open_reader(sqlite_settings) as reader:
            assert await reader.get("c1") is not None
        writer.execute("ROLLBACK")
    await records.close()
