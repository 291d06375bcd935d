"""What calls that run have used and keep so far: what they would come to if they ended now, read once, counted once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from sipserver import events
from sipserver.events import Event
from sipserver.journal import Entry, Kind
from sipserver.store import running as running_of
from sipserver.store.database import Database
from sipserver.store.journal_sink import JournalSink
from sipserver.store.ledger import Ledger
from sipserver.store.running import LONGEST, Running
from sipserver.store.schema import usage
from tests.fakes.told import start, tell
from tests.store.conftest import store_settings
from tests.store.test_usage import COURSE, database, entries
from tests.store.told import gone

__all__ = ["database", "store_settings"]

BEGAN = datetime.fromtimestamp(1_790_000_000.25, UTC)
SOON = BEGAN + timedelta(seconds=60)
Used = dict[tuple[str, str, str, str], int]


async def so_far(running: Running, now: datetime = SOON, tenant: str = "acme") -> tuple[Used, int]:
    used: Used = {}
    kept = 0
    async for call in running.of(tenant, now):
        used |= {(row.part, row.leg, row.engine, row.model): row.quantity for row in call.used}
        kept += call.kept
    return used, kept


async def noted(database: Database, call_id: str) -> Used:
    columns = (usage.c.part, usage.c.leg, usage.c.engine, usage.c.model, usage.c.quantity)
    query = sa.select(*columns).where(usage.c.call_id == call_id)
    async with database.engine.connect() as connection:
        return {(row.part, row.leg, row.engine, row.model): row.quantity for row in await connection.execute(query)}


def closed(call_id: str, at: datetime = SOON) -> Entry:
    fields = {"reason": "caller_hangup", "sip_code": 200}
    return Entry(Kind.CLOSED, "one", "r1", call_id, at.timestamp(), fields)


async def test_at_every_moment_it_is_what_the_call_comes_to_if_it_ends_then(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_of, "EVENTS", 2)
    watching = Running(database)
    for cut in range(1, len(COURSE) + 3):
        call_id = f"c{cut}"
        told = entries(call_id=call_id, ends=False)[:cut]
        for entry in told:
            await Ledger(database).apply([entry])
            used, _ = await so_far(watching)
        assert used == (await so_far(Running(database)))[0], "whoever looks, and however often"
        kept = await watching.stored("acme", SOON)
        await Ledger(database).apply([closed(call_id)])
        assert await noted(database, call_id) == used
        assert await watching.stored("acme", SOON) == kept
        assert await so_far(watching) == ({}, 0), "what it came to is noted elsewhere by now"


def course(*told: tuple[int, Event], call_id: str = "c1", tenant: str = "acme") -> list[Entry]:
    """Of a call that goes on. Its clock begins with the call."""
    found: list[Entry] = []
    sink = JournalSink("one", "r1", found.append, now=BEGAN.timestamp, clock=lambda: 0.0)
    start(sink, call_id, tenant=tenant)
    for at_ms, event in told:
        tell(sink, event, call_id, tenant=tenant, at_ms=at_ms)
        if isinstance(event, events.RecordingStarted | events.RecordingStopped):
            status = "recording" if isinstance(event, events.RecordingStarted) else "complete"
            sink.recording(call_id=call_id, path=event.path, status=status)
    return found


async def test_a_recording_that_runs_is_kept_as_long_as_it_is(database: Database) -> None:
    running, ledger = Running(database), Ledger(database)
    first, second = events.RecordingStarted("/n/1.wav"), events.RecordingStarted("/n/2.wav", channels=1)
    told = course((2000, first), (5000, events.RecordingStopped("/n/1.wav", 3 * 16_000)), (6000, second))
    await ledger.apply(told[:3])
    assert await running.stored("acme", BEGAN + timedelta(seconds=4)) == 2 * 64_000 + 44
    await ledger.apply(told[3:5])
    assert await running.stored("acme", BEGAN + timedelta(seconds=5)) == 3 * 64_000 + 44
    await ledger.apply(told[5:])
    both = 3 * 64_000 + 44 + 4 * 32_000 + 44
    assert await running.stored("acme", BEGAN + timedelta(seconds=10)) == both
    assert await running.stored("zenith", BEGAN + timedelta(seconds=10)) == 0
    await ledger.apply([closed("c1", BEGAN + timedelta(seconds=10))])
    assert await running.stored("acme", BEGAN + timedelta(seconds=99)) == both, "it is over, and grows no more"


async def test_calls_of_one_tenant_that_are_not_over_and_not_too_old(database: Database) -> None:
    used = events.EngineUsed("tts", 10, "voice")
    await Ledger(database).apply(course((1, used)) + course((1, used), call_id="c2", tenant="zenith"))
    running = Running(database)
    assert await so_far(running) == ({("tts", "", "voice", ""): 10}, 0)
    assert await so_far(running, BEGAN + LONGEST + timedelta(seconds=1)) == ({}, 0)
    assert await so_far(running, tenant="nobody") == ({}, 0)


async def test_one_that_was_thought_dead_goes_on_from_what_it_has_told(database: Database) -> None:
    watching, ledger = Running(database), Ledger(database)
    told = course(*((number, events.EngineUsed("tts", 10, "voice")) for number in range(6)))
    await ledger.apply(told[:4])
    assert (await so_far(watching))[0] == {("tts", "", "voice", ""): 30}
    await ledger.apply([gone()])
    assert await so_far(watching) == ({}, 0)
    await ledger.apply(told[4:6])
    assert (await so_far(watching))[0] == {("tts", "", "voice", ""): 50}
    await ledger.apply([gone(), *told[6:]])
    assert (await so_far(watching))[0] == {("tts", "", "voice", ""): 60}, "nobody looked while it was dead"


async def test_two_looks_at_a_time_read_the_same_once(database: Database) -> None:
    told = course(*((number, events.EngineUsed("tts", 10, "voice")) for number in range(50)))
    await Ledger(database).apply(told)
    running = Running(database)
    found = await asyncio.gather(*(so_far(running) for _ in range(4)))
    assert [used for used, _ in found] == [{("tts", "", "voice", ""): 500}] * 4


async def test_calls_that_nobody_asks_for_are_forgotten(database: Database) -> None:
    now_s = 0.0
    running = Running(database, clock=lambda: now_s)
    await Ledger(database).apply(course((1, events.EngineUsed("tts", 10, "voice"))))
    await so_far(running)
    now_s = running_of.REMEMBERED_S
    await so_far(running, tenant="zenith")
    assert set(running._tenants) == {"zenith"}
    assert (await so_far(running))[0] == {("tts", "", "voice", ""): 10}
