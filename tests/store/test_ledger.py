"""Entries become the same rows, however often they come, wherever they are cut, and whoever writes them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sipserver import events
from sipserver.journal import Entry, Kind
from sipserver.store import batch, crashed
from sipserver.store.database import Database
from sipserver.store.ledger import BATCH, Ledger
from sipserver.store.reader import CallFile, CallRow, Reader
from sipserver.store.schema import CRASHED, calls
from sipserver.store.settings import StoreSettings
from tests.store.told import gone, mixed, one_call, unfinished

BEGAN = datetime.fromtimestamp(1_790_000_000.25, UTC)


@pytest.fixture
async def database(store_settings: StoreSettings) -> AsyncIterator[Database]:
    opened = Database(store_settings)
    await opened.open()
    yield opened
    await opened.close()


async def call(database: Database, call_id: str = "c1") -> CallRow:
    found = await Reader(database).get(call_id)
    assert found is not None
    return found


async def told(database: Database, call_id: str = "c1") -> list[tuple[int, str]]:
    return [(event.seq, event.kind) for event in await Reader(database).events(call_id)]


async def everything(database: Database) -> tuple[Any, ...]:
    reader = Reader(database)
    rows = await reader.list(1000)
    return rows, [await reader.events(row.id) for row in rows]


async def test_a_call_from_its_entries(database: Database) -> None:
    applied = await Ledger(database).apply(one_call())
    assert (applied.lost, applied.strays, applied.crashed) == (0, 0, [])
    row = await call(database)
    assert (row.node, row.run, row.tenant, row.from_uri, row.sip_call_id) == (
        "one",
        "r1",
        "acme",
        "sip:ann@a",
        "c1@peer",
    )
    assert (row.route, row.flow, row.state, row.end_reason, row.sip_code) == (2, "main", "ended", "caller_hangup", 200)
    assert (row.digits, row.faults, row.events, row.events_dropped) == (3, 1, 8, 0)
    assert (row.recording_path, row.recording_status) == ("/nowhere/c1.wav", "complete")
    assert (row.started_at, row.answered_at) == (BEGAN, BEGAN + timedelta(seconds=3))
    assert row.ended_at == BEGAN + timedelta(seconds=12)
    assert [seq for seq, _ in await told(database)] == list(range(8))


async def test_again_changes_nothing_also_for_another_writer(database: Database) -> None:
    entries = mixed(one_call(), one_call("c2", node="two", run="r2"))
    ledger = Ledger(database)
    await ledger.apply(entries)
    before = await everything(database)
    for each in (ledger, Ledger(database)):
        await each.apply(entries)
        await each.apply(entries[5:])
        assert await everything(database) == before


NUMBERS = itertools.count()
CUT = st.tuples(st.integers(0, 25), st.integers(0, 25), st.booleans())


@given(cuts=st.lists(CUT, max_size=4))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_deliveries_give_the_same_rows(database: Database, cuts: list[tuple[int, int, bool]]) -> None:
    """Parts that come twice, writers that die between them."""
    names = [f"c{next(NUMBERS)}" for _ in range(3)]
    await Ledger(database).apply(one_call(names[0]))
    entries = mixed(*(one_call(name) for name in names[1:]))
    ledger, reached = Ledger(database), 0
    for back, forth, dies in cuts:
        begin = max(0, reached - back)
        reached = max(reached, min(len(entries), begin + forth))
        await ledger.apply(entries[begin : begin + forth])
        ledger = Ledger(database) if dies else ledger
    await ledger.apply(entries[reached:])
    rows = [await call(database, name) for name in names]
    for row, name in zip(rows[1:], names[1:], strict=True):
        expected = dataclasses.asdict(rows[0]) | {
            "id": name,
            "sip_call_id": f"{name}@peer",
            "recording_path": f"/nowhere/{name}.wav",
        }
        assert dataclasses.asdict(row) == expected
        assert await told(database, name) == await told(database, names[0])


async def test_a_restarted_writer_goes_on_with_right_counts(database: Database) -> None:
    entries = one_call(digits=40)
    await Ledger(database).apply(entries[:20])
    await Ledger(database).apply(entries[20:])
    row = await call(database)
    assert (row.digits, row.events, row.end_reason) == (40, 45, "caller_hangup")


async def test_entries_that_were_lost_on_the_way_are_counted(database: Database) -> None:
    entries = one_call(digits=40)
    await Ledger(database).apply([*entries[:10], *entries[30:]])
    row = await call(database)
    assert (row.digits, row.events, row.events_dropped) == (20, 25, 20)


async def test_what_says_nothing_useful_is_counted(database: Database) -> None:
    begun, event = one_call()[:2]
    broken = dataclasses.replace(event, fields={"seq": "x"})
    applied = await Ledger(database).apply([event, begun, broken, dataclasses.replace(event, call_id="nobody"), event])
    assert applied.strays == 3
    assert await told(database) == [(0, "call.started")]


@pytest.mark.parametrize("at_ms", [2**70, 2**40])
async def test_a_row_that_the_database_never_takes_costs_only_itself(database: Database, at_ms: int) -> None:
    entries = one_call()
    entries[2] = dataclasses.replace(entries[2], fields={**entries[2].fields, "at_ms": at_ms})
    applied = await Ledger(database).apply(entries)
    if applied.lost:  # SQLite takes any integer of 64 bits
        assert applied.lost == 1
        assert [seq for seq, _ in await told(database)] == [0, 2, 3, 4, 5, 6, 7]
    assert (await call(database)).events == 8


async def test_a_failed_transaction_leaves_no_trace_in_memory(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries, ledger = one_call(), Ledger(database)
    await ledger.apply(entries[:4])
    write = batch.write

    async def lost_answer(*arguments: Any) -> int:
        await write(*arguments)
        raise OSError("the answer was lost")

    async def refuse(*_: Any) -> int:
        raise OSError("gone")

    for attempt in (refuse, lost_answer):
        with monkeypatch.context() as patched:
            patched.setattr(batch, "write", attempt)
            with pytest.raises(OSError, match=r"gone|answer"):
                await ledger.apply(entries[4:10])
    await ledger.apply(entries[4:])
    row = await call(database)
    assert (row.digits, row.events, row.faults, row.end_reason) == (3, 8, 1, "caller_hangup")


async def test_a_writer_that_was_replaced_and_finishes_late_undoes_nothing(database: Database) -> None:
    entries, stopped = one_call(), Ledger(database)
    await stopped.apply(entries[:4])
    await Ledger(database).apply(entries[4:])
    before = await everything(database)
    for late in (entries[4:6], entries[6:9], entries[9:-1]):
        await stopped.apply(late)
        assert await everything(database) == before


# --- processes that died ----------------------------------------------------------------------------------------------


async def test_calls_of_a_dead_process_are_closed_once(database: Database) -> None:
    ledger = Ledger(database)
    entries = mixed(unfinished(), one_call("over"), unfinished("other", run="r2"))
    applied = await ledger.apply([*entries, gone()])
    assert applied.crashed == applied.broken == [CallFile("c1", "acme", "/nowhere/c1.wav")]
    row = await call(database)
    assert (row.end_reason, row.state, row.recording_status, row.events) == ("crash", "ended", "failed", 7)
    assert row.ended_at == BEGAN + timedelta(milliseconds=102)
    assert (await told(database))[-1] == (6, "call.ended")
    (end,) = applied.ends
    assert (end.call_id, end.run, end.fields["tenant"], end.fields["seq"]) == ("c1", "r1", "acme", 6)
    assert end.fields["fields"]["detail"] == "SIGKILL"
    assert (await call(database, "over")).end_reason == "caller_hangup"
    assert (await call(database, "other")).end_reason is None
    before = await everything(database)
    again = await ledger.apply([*entries, gone()])
    assert (again.crashed, again.broken) == ([], [CallFile("c1", "acme", "/nowhere/c1.wav")])
    assert again.ends == applied.ends
    assert await everything(database) == before


async def test_a_mended_recording_is_not_mended_again(database: Database) -> None:
    ledger = Ledger(database)
    await ledger.apply([*unfinished(), gone()])
    facts = {"path": "/nowhere/c1.wav", "status": "complete"}
    await ledger.apply([Entry(Kind.RECORDING, "one", "writer", "c1", 1_790_000_200.0, facts)])
    assert (await call(database)).recording_status == "complete"
    assert (await ledger.apply([gone()])).broken == []


async def test_a_process_that_was_thought_dead_has_the_last_word(database: Database) -> None:
    """Its entries were on their way, or it was only cut off: nothing of them is lost."""
    entries = one_call()
    for cut in range(1, len(entries)):
        call_id = f"c{cut}"
        theirs = [dataclasses.replace(entry, call_id=call_id) for entry in entries]
        await Ledger(database).apply([*theirs[:cut], gone()])
        await Ledger(database).apply(theirs[max(0, cut - 3) :])
        row = await call(database, call_id)
        assert (row.end_reason, row.state, row.sip_code, row.events) == ("caller_hangup", "ended", 200, 8), cut
        assert (row.digits, row.faults, row.recording_status) == (3, 1, "complete")
        assert [kind for _, kind in await told(database, call_id)] == [
            entry.fields["kind"] for entry in entries if entry.kind is Kind.EVENT
        ]


async def test_a_process_that_was_thought_dead_and_dies_later_is_closed_again(database: Database) -> None:
    ledger, entries = Ledger(database), unfinished()
    await ledger.apply([*entries[:5], gone()])
    await ledger.apply(entries)
    assert await Reader(database).open_runs() == {("one", "r1"): 6}
    assert [each.call_id for each in (await ledger.apply([gone()])).crashed] == ["c1"]
    assert await Reader(database).open_runs() == {}
    assert (await told(database))[-1] == (6, events.CallEnded.kind)


async def test_a_call_that_said_how_it_ended_has_not_crashed(database: Database) -> None:
    entries = one_call()
    assert entries[-1].kind is Kind.CLOSED
    applied = await Ledger(database).apply([*entries[:-1], gone()])
    assert applied.crashed == []
    row = await call(database)
    assert (row.end_reason, row.sip_code, row.events) == ("caller_hangup", 200, 8)


async def test_crashed_calls_are_found_by_an_index(database: Database) -> None:
    query = sa.select(calls.c.id).where(crashed.of_run("r1"), CRASHED)
    written = query.compile(database.engine.sync_engine, compile_kwargs={"literal_binds": True})
    explain = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"
    async with database.engine.begin() as connection:
        if not database.is_sqlite:
            await connection.execute(sa.text("SET LOCAL enable_seqscan = off"))
        plan = (await connection.exec_driver_sql(f"{explain} {written}")).all()
    assert "calls_crashed" in str(plan)


async def test_many_entries_are_written_in_parts(database: Database) -> None:
    ledger = Ledger(database)
    await ledger.apply(one_call(digits=3 * BATCH))
    assert len(await Reader(database).events("c1")) == 3 * BATCH + 5
    assert await Reader(database).nodes(BEGAN - timedelta(seconds=1)) == {"one"}
    assert await Reader(database).nodes(BEGAN + timedelta(seconds=1)) == set()
