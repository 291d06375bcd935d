"""What calls used follows from their records: once, whoever writes, however often, and when they are killed."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from sipserver import events
from sipserver.events import Event
from sipserver.journal import Entry
from sipserver.store import crashed
from sipserver.store.database import Database
from sipserver.store.journal_sink import JournalSink
from sipserver.store.ledger import Ledger
from sipserver.store.reader import Reader
from sipserver.store.retention import Kept, RetentionRows
from sipserver.store.running import Running
from sipserver.store.schema import doomed_files, stored, usage
from sipserver.store.settings import StoreSettings
from tests.fakes.told import start, tell
from tests.store.told import clock, gone, seconds, unfinished

COURSE: Sequence[tuple[int, Event]] = (
    (0, events.CallStarted("inbound", trunk="berlin")),
    (1, events.CallRouted(0, "main")),
    (2000, events.RecordingStarted("/nowhere/c1.wav", channels=1)),
    (2100, events.EngineUsed("tts", 12, "voice", "openai", "tts-1")),
    (3000, events.EngineUsed("stt", 1500, "ears")),
    (3500, events.ModelSpan("mind", "complete", 100, 300, 120, 30, "Hi", "openai", "gpt-4o")),
    (4000, events.ModelSpan("mind", "cancelled", 100, 300, None, None, "I", "openai", "gpt-4o")),
    (4100, events.ModelSpan("mind", "failed", None, 300, None, None, "", "openai", "gpt-4o")),
    (5000, events.EngineUsed("tts", 30, "voice", "openai", "tts-1")),
    (6000, events.PartyDialed("party-1", "sip:bob@b", "berlin")),
    (6500, events.PartyDialed("party-1", "sip:bob@b", "hamburg", 2)),
    (8000, events.LegAnswered(leg="party-1")),
    (9500, events.LegDisconnected(200, "OK", True, leg="party-1")),
    (9600, events.PartyDialed("party-2", "sip:ann@b", "berlin")),
    (9700, events.LegAnswered(leg="party-2")),
    (10_000, events.RecordingStopped("/nowhere/c1.wav", 16_000 * 8)),
)


def entries(course: Sequence[tuple[int, Event]] = COURSE, call_id: str = "c1", *, ends: bool = True) -> list[Entry]:
    told: list[Entry] = []
    sink = JournalSink("one", "r1", told.append, now=clock(), clock=seconds())
    start(sink, call_id)
    sink.answered(call_id)
    for at_ms, event in course:
        tell(sink, event, call_id, at_ms=at_ms)
    if ends:
        tell(sink, events.CallEnded("caller_hangup", 200), call_id, at_ms=11_000)
        sink.ended(call_id=call_id, reason="caller_hangup", sip_code=200)
    return told


@pytest.fixture
async def database(store_settings: StoreSettings) -> AsyncIterator[Database]:
    opened = Database(store_settings)
    await opened.open()
    yield opened
    await opened.close()


async def used(database: Database, call_id: str = "c1") -> dict[tuple[str, str, str, str], int]:
    columns = (usage.c.part, usage.c.leg, usage.c.engine, usage.c.model, usage.c.quantity)
    async with database.engine.connect() as connection:
        found = await connection.execute(sa.select(*columns).where(usage.c.call_id == call_id))
        return {(part, leg, engine, model): quantity for part, leg, engine, model, quantity in found}


WHOLE = {
    ("stt", "", "ears", ""): 1500,
    ("tts", "", "voice", "tts-1"): 42,
    ("llm.in", "", "mind", "gpt-4o"): 120,
    ("llm.out", "", "mind", "gpt-4o"): 30,
    ("llm.untold", "", "mind", "gpt-4o"): 1,
    ("leg", "party-1", "hamburg", ""): 1500,
    ("recording", "", "", ""): 8000,
    ("recording.size", "", "", ""): 8 * 32_000 + 44,
}


async def test_a_call_by_part(database: Database) -> None:
    await Ledger(database).apply(entries())
    found = await used(database)
    # By the journal's clock the answer came with its second entry, the end with the 19th after it.
    length_ms = found.pop(("call.inbound", "", "berlin", ""))
    assert length_ms == len(COURSE) * 1000 + 2000
    assert found.pop(("leg", "party-2", "berlin", "")) > 0
    assert found == WHOLE


async def test_again_cut_anywhere_and_by_another_writer_it_is_the_same(database: Database) -> None:
    told = entries()
    await Ledger(database).apply(told)
    before = await used(database)
    for cut in range(0, len(told), 5):
        again = Ledger(database)
        await again.apply(told[:cut])
        await again.apply(told[max(0, cut - 3) :])
        assert await used(database) == before


async def test_one_that_is_killed_has_used_what_is_known(database: Database) -> None:
    ledger = Ledger(database)
    killed = entries(COURSE[:13], ends=False)
    await ledger.apply(killed)
    assert await used(database) == {}
    await ledger.apply([gone()])
    found = await used(database)
    assert found[("call.inbound", "", "berlin", "")] == 9500 - 1000
    assert found[("recording", "", "", "")] == 7500
    assert {key: found[key] for key in WHOLE if key[0] not in ("recording", "recording.size")} == {
        key: WHOLE[key] for key in WHOLE if key[0] not in ("recording", "recording.size")
    }
    await ledger.apply([*killed, gone()])
    await Ledger(database).apply([*killed, gone()])
    assert await used(database) == found


async def test_one_that_was_thought_dead_is_counted_to_its_end(database: Database) -> None:
    told = entries()
    half = len(told) // 2
    ledger = Ledger(database)
    await ledger.apply([*told[:half], gone(), *told[half:]])
    other = Ledger(database)
    await other.apply(entries(call_id="c2"))
    assert await used(database) == await used(database, "c2")


async def test_what_is_told_after_the_end_is_used_too(database: Database) -> None:
    await Ledger(database).apply(entries())
    sink_told: list[Entry] = []
    sink = JournalSink("one", "r1", sink_told.append, now=clock(), clock=seconds())
    start(sink)
    for number in itertools.count():
        if len(sink_told) > len(COURSE) + 1:
            break
        tell(sink, COURSE[0][1], at_ms=number)
    tell(sink, events.EngineUsed("stt", 700, "ears"), at_ms=20_000)
    await Ledger(database).apply(sink_told[-1:])
    assert (await used(database))[("stt", "", "ears", "")] == 2200


async def test_a_server_that_sweeps_counts_as_well(database: Database) -> None:
    await Ledger(database).apply(unfinished())
    await crashed.close(database.engine, crashed.of_run("r1"), "gone")
    assert set(await used(database)) == set()  # it was answered after its last event, by the clocks of this journal


async def test_rubbish_in_an_event_costs_nothing_but_itself(database: Database) -> None:
    broken = events.EngineUsed("stt", "much", "ears")  # type: ignore[arg-type]
    await Ledger(database).apply(entries([(1, broken), (2, events.EngineUsed("stt", 10, "ears"))]))
    assert (await used(database))[("stt", "", "ears", "")] == 10


async def stored_of(database: Database, call_id: str = "c1") -> dict[str, int]:
    async with database.engine.connect() as connection:
        query = sa.select(stored.c.kind, stored.c.bytes).where(stored.c.call_id == call_id, stored.c.tenant == "acme")
        return {row.kind: row.bytes for row in await connection.execute(query)}


def with_sound(call_id: str = "c1") -> list[Entry]:
    """A call with two recordings and a message."""
    told: list[Entry] = []
    sink = JournalSink("one", "r1", told.append, now=clock(), clock=seconds())
    start(sink, call_id)
    for number, samples in ((1, 16_000), (2, 32_000)):
        path = f"/nowhere/{call_id}-{number}.wav"
        tell(sink, events.RecordingStarted(path), call_id, at_ms=number)
        sink.recording(call_id=call_id, path=path, status="recording")
        tell(sink, events.RecordingStopped(path, samples), call_id, at_ms=number)
        sink.recording(call_id=call_id, path=path, status="complete")
    tell(sink, events.VoicemailLeft("box", f"/nowhere/{call_id}-m.wav", 500, "key"), call_id, at_ms=4)
    sink.ended(call_id=call_id, reason="caller_hangup", sip_code=200)
    return told


async def test_sound_that_is_kept_is_counted_until_it_goes(database: Database) -> None:
    running, retention, now = Running(database), RetentionRows(database), datetime.now(UTC)
    for call_id in ("c1", "c2", "c3"):
        await Ledger(database).apply(with_sound(call_id))
    recorded, message = 3 * 64_000 + 2 * 44, 16_000 + 44
    assert await stored_of(database) == {"recording": recorded, "voicemail": message}
    await Ledger(database).apply(with_sound())
    assert await running.stored("acme", now) == 3 * (recorded + message)
    assert await running.stored("zenith", now) == 0
    assert await retention.delete(Kept.EVENTS, ["c1"], now) == 0
    assert await retention.delete(Kept.RECORDINGS, ["c1"], now) == 2, "both files of the call"
    assert await stored_of(database) == {"voicemail": message}
    assert await retention.delete(Kept.VOICEMAIL, ["c1"], now) == 1
    assert await stored_of(database) == {}
    assert await retention.delete(Kept.RECORDS, ["c2"], now) == 3
    assert await running.stored("acme", now) == recorded + message
    assert (await used(database, "c2"))[("recording.size", "", "", "")] == recorded + message, "bills stay"
    async with database.engine.connect() as connection:
        doomed = await connection.execute(sa.select(doomed_files.c.path))
        assert {path for (path,) in doomed} == {f"/nowhere/c{n}-{what}.wav" for n in (1, 2) for what in (1, 2, "m")}


async def test_what_comes_late_brings_no_deleted_sound_back(database: Database) -> None:
    told = with_sound()
    await Ledger(database).apply(told)
    await RetentionRows(database).delete(Kept.RECORDINGS, ["c1"], datetime.now(UTC))
    sink = JournalSink("one", "r1", told.append, now=clock(), clock=seconds())
    for number in range(6):
        tell(sink, events.CallMuted(True), at_ms=number)
    await Ledger(database).apply(told[-1:])
    assert set(await stored_of(database)) == {"voicemail"}


async def test_a_recording_that_was_refused_is_in_the_record_and_no_file(database: Database) -> None:
    told: list[Entry] = []
    sink = JournalSink("one", "r1", told.append, now=clock(), clock=seconds())
    start(sink, "c1")
    sink.recording(call_id="c1", path="", status="refused")
    await Ledger(database).apply(told)
    reader = Reader(database)
    row = await reader.get("c1")
    assert row is not None
    assert (row.recording_path, row.recording_status) == (None, "refused")
    sink.recording(call_id="c1", path="/nowhere/c1.wav", status="recording")
    sink.recording(call_id="c1", path="", status="refused")
    await Ledger(database).apply(told)
    row = await reader.get("c1")
    assert row is not None
    assert (row.recording_path, row.recording_status) == ("/nowhere/c1.wav", "recording")
