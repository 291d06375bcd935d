"""A database that is locked or full, and a process that is killed: calls go on, nothing written is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog

from sipserver import events
from sipserver.journal import Entry
from sipserver.store import batch, sqlite_driver
from sipserver.store import records as records_module
from sipserver.store.database import Database
from sipserver.store.records import CallFile, Records
from sipserver.store.settings import StoreSettings
from tests.fakes.told import start, tell


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_driver, "BUSY_TIMEOUT_MS", 20)


@pytest.fixture
async def sqlite_records(sqlite_settings: StoreSettings) -> AsyncIterator[Records]:
    opened = Records(sqlite_settings, node="test")
    await opened.open()
    yield opened
    await opened.close()


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Somebody else writes and does not finish."""
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


@contextlib.contextmanager
def full_disk(largest: int) -> Iterator[None]:
    """No file of this process may grow beyond so many bytes: SQLite sees a failing write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def file_of(settings: StoreSettings) -> Path:
    return Path(settings.url.removeprefix("sqlite+aiosqlite:///"))


async def kinds(records: Records, call_id: str = "c1") -> list[str]:
    return [event.kind for event in await records.events(call_id)]


async def test_a_locked_database_is_logged_once_counted_and_retried(
    sqlite_records: Records, sqlite_settings: StoreSettings
) -> None:
    start(sqlite_records)
    with structlog.testing.capture_logs() as logs:
        with locked(file_of(sqlite_settings)):
            tell(sqlite_records, events.LegAnswered())
            assert [await sqlite_records.flush() for _ in range(3)] == [False] * 3
            sqlite_records.ended(call_id="c1", reason="caller_hangup", sip_code=200)
            assert (sqlite_records.failing, sqlite_records.depth) == (True, 3)
        assert sqlite_records.failures >= 3
        assert await sqlite_records.flush()
    assert not sqlite_records.failing
    call = await sqlite_records.get("c1")
    assert call is not None
    assert call.end_reason == "caller_hangup"
    assert await kinds(sqlite_records) == ["leg.answered"]
    assert [entry["log_level"] for entry in logs] == ["error", "warning"]
    assert "locked" in logs[0]["error"]
    assert "sip:" not in str(logs)


async def test_the_writer_tries_again_by_itself(sqlite_records: Records, sqlite_settings: StoreSettings) -> None:
    with locked(file_of(sqlite_settings)):
        start(sqlite_records)
        async with asyncio.timeout(5):
            while sqlite_records.failures < 2:  # noqa: ASYNC110  what is counted is the point
                await asyncio.sleep(0.01)
    async with asyncio.timeout(10):
        while await sqlite_records.get("c1") is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_full_disk_costs_no_call_anything(sqlite_records: Records, sqlite_settings: StoreSettings) -> None:
    start(sqlite_records)
    tell(sqlite_records, events.LegAnswered())
    assert await sqlite_records.flush()
    journal = Path(f"{file_of(sqlite_settings)}-wal").stat().st_size  # noqa: ASYNC240
    with full_disk(journal + 1000):
        for number in range(100):
            tell(sqlite_records, events.Transcript(text="x" * 500), at_ms=number)
        start(sqlite_records, "c2")
        sqlite_records.ended(call_id="c1", reason="caller_hangup", sip_code=200)
        assert not await sqlite_records.flush()
        assert await kinds(sqlite_records) == ["leg.answered"]
    assert await sqlite_records.flush()
    assert len(await sqlite_records.events("c1")) == 101
    assert {call.id: call.end_reason for call in await sqlite_records.list()} == {"c1": "caller_hangup", "c2": None}


async def test_tables_that_vanish_are_waited_for(sqlite_records: Records, sqlite_settings: StoreSettings) -> None:
    """An operator restores a backup below a running server."""
    start(sqlite_records)
    await sqlite_records.flush()
    with contextlib.closing(sqlite3.connect(file_of(sqlite_settings), isolation_level=None)) as operator:
        operator.execute("ALTER TABLE events RENAME TO elsewhere")
        tell(sqlite_records, events.LegAnswered())
        assert not await sqlite_records.flush()
        operator.execute("ALTER TABLE elsewhere RENAME TO events")
    assert await sqlite_records.flush()
    assert await kinds(sqlite_records) == ["leg.answered"]


async def test_a_driver_that_breaks_in_an_unknown_way_is_tried_again(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> int:
        raise RuntimeError("the driver has a bug")

    start(records)
    with monkeypatch.context() as patched:
        patched.setattr(batch, "write", broken)
        assert not await records.flush()
    assert await records.flush()
    assert (await records.list())[0].id == "c1"


async def test_close_gives_up_in_time_and_names_the_calls_that_are_lost(
    sqlite_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records_module, "CLOSE_S", 0.2)
    records = Records(sqlite_settings)
    await records.open()
    with structlog.testing.capture_logs() as logs, locked(file_of(sqlite_settings)):
        start(records)
        tell(records, events.LegAnswered())
        await records.close()
    lost = [entry for entry in logs if entry["event"] == "call records are lost"]
    assert [(entry["calls"], entry["events"]) for entry in lost] == [(["c1"], 1)]


async def test_a_connection_that_is_given_up_keeps_no_lock(sqlite_settings: StoreSettings) -> None:
    """The way to where a task was cancelled ends in a cursor, and lives as long as its exception."""
    opened = Database(sqlite_settings)
    await opened.open()
    async with opened.engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        await raw.execute("BEGIN IMMEDIATE")
        cursor = await raw.execute("SELECT 1 UNION SELECT 2")
        await connection.invalidate()
        with locked(file_of(sqlite_settings)):
            pass
        del cursor
    await opened.close()


async def test_a_cancelled_flush_loses_nothing(records: Records) -> None:
    for round_number in range(20):
        start(records, f"c{round_number}")
        tell(records, events.LegAnswered(), f"c{round_number}")
        flushing = asyncio.create_task(records.flush())
        for _ in range(round_number):
            await asyncio.sleep(0)
        flushing.cancel()
        await asyncio.wait({flushing})
    assert await records.flush()
    assert len(await records.list(100)) == 20
    assert [await kinds(records, f"c{number}") for number in range(20)] == [["leg.answered"]] * 20


async def test_open_calls_of_an_earlier_process_are_closed_as_crashed(store_settings: StoreSettings) -> None:
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    died = Records(store_settings, node="one", now=lambda: moment, clock=lambda: 0.0)
    await died.open()
    for name in ("speaking", "silent", "over"):
        start(died, name)
    tell(died, events.LegAnswered(), "speaking", at_ms=7000)
    died.recording(call_id="speaking", path="/r/speaking.wav", status="recording")
    died.ended(call_id="over", reason="busy", sip_code=486)
    await died.flush()
    elsewhere = Records(store_settings, node="two", now=lambda: moment, clock=lambda: 0.0)
    await elsewhere.open()
    start(elsewhere, "far")
    await elsewhere.flush()

    heard: list[Entry] = []

    async def hear(entries: Sequence[Entry]) -> None:
        heard.extend(entry for entry in entries if entry.call_id != "new")

    records = Records(store_settings, node="one", tell=hear)
    await records.open()
    start(records, "new")
    await records.flush()
    assert await records.sweep_crashed() == [
        CallFile("silent", "acme", None),
        CallFile("speaking", "acme", "/r/speaking.wav"),
    ]
    assert await records.sweep_crashed() == []
    told = [(entry.call_id, entry.fields["kind"], entry.fields["seq"], entry.fields["tenant"]) for entry in heard]
    assert told == [
        ("speaking", "leg.answered", 0, "acme"),  # the dead process may have written it without telling it
        ("silent", "call.ended", 0, "acme"),
        ("speaking", "call.ended", 1, "acme"),
    ]
    assert heard[-1].fields["fields"]["reason"] == "crash"
    speaking, silent = await records.get("speaking"), await records.get("silent")
    assert speaking is not None
    assert silent is not None
    assert (speaking.end_reason, speaking.state, speaking.recording_status) == ("crash", "ended", "failed")
    assert speaking.ended_at == moment + timedelta(seconds=7)
    assert (silent.ended_at, silent.recording_status, silent.events) == (moment, None, 1)
    assert [(event.seq, event.kind, event.at_ms) for event in await records.events("speaking")] == [
        (0, "leg.answered", 7000),
        (1, "call.ended", 7000),
    ]
    assert {call.id for call in await records.list(open_only=True)} == {"far", "new"}
    records.recording(call_id="speaking", path="/r/speaking.wav", status="complete")
    await records.flush()
    repaired = await records.get("speaking")
    assert repaired is not None
    assert repaired.recording_status == "complete"
    for each in (died, elsewhere, records):
        await each.close()


VICTIM = """
import asyncio, sys
from sipserver import events
from sipserver.store.records import Records
from sipserver.store.settings import StoreSettings
from tests.fakes.told import start, tell

async def main():
    records = Records(StoreSettings(url=sys.argv[1], flush_ms=10), node="test")
    await records.open()
    start(records)
    for number in range(1_000_000):
        tell(records, events.LegAnswered(), at_ms=number)
        if number % 50 == 0:
            await records.flush()
            print(number, flush=True)

asyncio.run(main())
"""


async def test_what_was_flushed_survives_kill_9(store_settings: StoreSettings) -> None:
    root = Path(__file__).parents[2]
    victim = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", VICTIM, store_settings.url],
        stdout=subprocess.PIPE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        text=True,
    )
    with victim:
        assert victim.stdout is not None
        flushed = [int(victim.stdout.readline()) for _ in range(20)][-1]
        victim.send_signal(signal.SIGKILL)
        flushed = int(victim.stdout.read().rpartition("\n")[0].rpartition("\n")[2] or flushed)
    assert victim.returncode == -signal.SIGKILL

    records = Records(store_settings, node="test")
    await records.open()
    told = await records.events("c1")
    assert [event.at_ms for event in told] == list(range(len(told)))
    assert len(told) > flushed >= 950
    assert [crashed.call_id for crashed in await records.sweep_crashed()] == ["c1"]
    call = await records.get("c1")
    assert call is not None
    assert (call.end_reason, call.events) == ("crash", len(told) + 1)
    await records.close()
    if not store_settings.url.startswith("sqlite"):
        return
    with contextlib.closing(sqlite3.connect(file_of(store_settings))) as check:
        assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)
