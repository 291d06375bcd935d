"""The call records: what is told is what can be read, in time, in order, and counted when it is too much."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sipserver import events
from sipserver.calls.record import RecordSink
from sipserver.errors import SettingsError
from sipserver.store.reader import open_reader
from sipserver.store.records import CallFile, Records
from sipserver.store.settings import StoreSettings
from tests.fakes.told import start, tell
from tests.fakes.until import until
from tests.store.told import seconds

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Clock:
    """A second later at every look; there is one at every thing told."""

    def __init__(self) -> None:
        self._seconds = itertools.count()

    def __call__(self) -> datetime:
        return NOON + timedelta(seconds=next(self._seconds))


async def wait_written(records: Records) -> None:
    await until(lambda: records.depth == 0, "all is written")


def rtp(mos: float | None = 4.2, *, lost: int = 3) -> events.RtpStats:
    return events.RtpStats(
        received=500,
        lost=lost,
        duplicated=0,
        reordered=0,
        discarded=0,
        jitter_ms=1.5,
        sent=490,
        remote_lost=0,
        remote_jitter_ms=0.5,
        round_trip_ms=None,
        mos=mos,
    )


async def test_a_call_from_start_to_end(store_settings: StoreSettings) -> None:
    records = Records(store_settings, node="here", now=Clock(), clock=seconds())
    await records.open()
    sink: RecordSink = records
    start(records)
    tell(records, events.CallStarted("inbound", "sip:ann@a", "sip:demo@b"))
    tell(records, events.CallRouted(route=2, flow="main"), at_ms=3)
    sink.answered("c1")
    tell(records, events.CallStateChanged("ringing", "answered"), at_ms=5)
    sink.recording(call_id="c1", path="/r/c1.wav", status="recording")
    tell(records, events.DigitReceived("5"), at_ms=900)
    tell(records, events.TurnEnded("silence", 500, 1200), at_ms=2000)
    tell(records, events.Fault("tape", "full"), at_ms=2500)
    tell(records, rtp(4.1), at_ms=5000)
    sink.recording(call_id="c1", path="/r/c1.wav", status="complete")
    sink.ended(call_id="c1", reason="caller_hangup", sip_code=200)
    tell(records, rtp(None, lost=4), at_ms=6000)
    assert await records.flush()

    call = await records.get("c1")
    assert call is not None
    assert (call.tenant, call.node, call.direction, call.from_uri) == ("acme", "here", "inbound", "sip:ann@a")
    assert (call.to_uri, call.source, call.sip_call_id) == ("sip:demo@b", "127.0.0.1:5062", "c1@peer")
    assert (call.route, call.flow, call.state) == (2, "main", "ended")
    assert (call.started_at, call.answered_at, call.ended_at) == tuple(NOON + timedelta(seconds=n) for n in (0, 3, 11))
    assert (call.end_reason, call.sip_code) == ("caller_hangup", 200)
    assert (call.recording_path, call.recording_status) == ("/r/c1.wav", "complete")
    assert (call.mos, call.rtp_received, call.rtp_lost, call.jitter_ms) == (4.1, 500, 4, 1.5)
    assert (call.turns, call.digits, call.faults, call.events, call.events_dropped) == (1, 1, 1, 8, 0)

    told = await records.events("c1")
    assert [event.seq for event in told] == list(range(8))
    assert [event.kind for event in told][:3] == ["call.started", "call.routed", "call.state"]
    assert (told[3].at_ms, told[3].fields) == (900, {"digit": "5", "method": "rfc4733", "duration_ms": None})
    assert [event.seq for event in await records.events("c1", after_seq=2, limit=2)] == [3, 4]
    await records.close()


async def test_the_writer_writes_by_itself(records: Records, store_settings: StoreSettings) -> None:
    start(records)
    tell(records, events.LegAnswered())
    async with asyncio.timeout(5), open_reader(store_settings) as reader:
        while not await reader.events("c1"):  # noqa: ASYNC110  another connection tells nothing of its own accord
            await asyncio.sleep(0.01)
        assert await reader.get("c1") is not None
    assert records.depth == 0


async def test_what_somebody_waits_for_is_written_at_once_and_all_before_it(store_settings: StoreSettings) -> None:
    patient = store_settings.model_copy(update={"flush_ms": 3_600_000})
    records = Records(patient, soon=lambda entry: entry.fields.get("kind") == "digit.received")
    await records.open()
    async with open_reader(store_settings) as reader:
        start(records)
        for number in range(3):
            tell(records, events.LegAnswered(), at_ms=10 * number)
            tell(records, events.DigitReceived("1"), at_ms=10 * number + 1)
            await wait_written(records)
        told = [event.at_ms for event in await reader.events("c1")]
        assert told == [0, 1, 10, 11, 20, 21]
        tell(records, events.LegAnswered(), at_ms=30)
        await records.close()
        assert len(await reader.events("c1")) == 7


async def test_close_writes_what_is_left_and_can_be_repeated(store_settings: StoreSettings) -> None:
    records = Records(store_settings)
    await records.open()
    start(records)
    for number in range(1200):
        tell(records, events.LegAnswered(), at_ms=number)
    await records.close()
    await records.close()
    async with open_reader(store_settings) as reader:
        assert [event.at_ms for event in await reader.events("c1")] == list(range(1200))
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "call records"]


async def test_a_full_queue_drops_events_where_there_is_no_spool_and_keeps_calls(tmp_path: Path) -> None:
    records = Records(StoreSettings(url=f"sqlite+aiosqlite:///{tmp_path}/r.db", queue=100, flush_ms=60_000))
    await records.open()
    start(records)
    for number in range(150):
        tell(records, events.DigitReceived("1"), at_ms=number)
    for number in range(300):
        start(records, f"more-{number}")
    records.ended(call_id="c1", reason="caller_hangup", sip_code=200)
    assert (records.depth, records.dropped) == (401, 51)
    assert await records.flush()
    tell(records, events.CallEnded("caller_hangup"), at_ms=151)
    assert await records.flush()
    call = await records.get("c1")
    assert call is not None
    assert (call.events, call.events_dropped, call.digits, call.end_reason) == (100, 51, 99, "caller_hangup")
    assert [event.seq for event in await records.events("c1")] == [*range(99), 150]
    assert len(await records.list(1000)) == 301
    await records.close()


async def test_what_is_told_of_unknown_calls_is_counted_and_harmless(records: Records) -> None:
    tell(records, events.LegAnswered(), "nobody")
    records.answered("nobody")
    records.ended(call_id="nobody", reason="busy", sip_code=486)
    records.recording(call_id="nobody", path="/r/x.wav", status="complete")
    start(records)
    start(records)
    assert records.strays == 4
    assert await records.flush()
    assert [call.id for call in await records.list()] == ["c1"]


async def test_the_first_end_counts(records: Records) -> None:
    start(records)
    records.ended(call_id="c1", reason="busy", sip_code=486)
    records.ended(call_id="c1", reason="crash", sip_code=500)
    await records.flush()
    call = await records.get("c1")
    assert call is not None
    assert call.end_reason == "busy"


async def test_ended_calls_are_forgotten_in_time_but_not_at_once(records: Records) -> None:
    for number in range(300):
        start(records, f"c{number}")
        records.ended(call_id=f"c{number}", reason="caller_hangup", sip_code=200)
    await records.flush()
    tell(records, rtp(), "c299")
    tell(records, rtp(), "c100")
    tell(records, rtp(), "c0")
    records.recording(call_id="c0", path="/r/late.wav", status="complete")
    assert records.strays == 1
    await records.flush()
    first, last = await records.get("c0"), await records.get("c299")
    assert first is not None
    assert last is not None
    assert (first.recording_path, first.recording_status, last.rtp_received) == ("/r/late.wav", "complete", 500)


@pytest.mark.parametrize("text", ["nul \x00 here", "half \udc80 a character", "ä☎" * 1000, ""])
async def test_any_text_can_be_kept(records: Records, text: str) -> None:
    start(records, from_uri=text)
    tell(records, events.Transcript(text=text))
    assert await records.flush()
    assert records.lost == 0
    call = await records.get("c1")
    assert call is not None
    assert len(call.from_uri) == min(len(text), 512)
    (told,) = await records.events("c1")
    assert told.fields["text"] == text.replace("\x00", "\ufffd")


async def test_a_row_that_no_database_takes_costs_only_itself(records: Records) -> None:
    start(records)
    tell(records, events.LegAnswered(), at_ms=1)
    tell(records, events.LegAnswered(), at_ms=2**70)
    tell(records, events.LegAnswered(), at_ms=3)
    assert await records.flush()
    assert (records.lost, records.failures) == (1, 0)
    assert [event.at_ms for event in await records.events("c1")] == [1, 3]


async def test_list_is_newest_first_by_page_tenant_and_state(store_settings: StoreSettings) -> None:
    records = Records(store_settings, now=Clock())
    await records.open()
    for number in range(6):
        start(records, f"c{number}", tenant="even" if number % 2 == 0 else "odd")
    records.ended(call_id="c5", reason="busy", sip_code=486)
    await records.flush()
    assert [call.id for call in await records.list(3)] == ["c5", "c4", "c3"]
    third = (await records.list(3))[-1]
    assert [call.id for call in await records.list(3, third.started_at)] == ["c2", "c1", "c0"]
    assert [call.id for call in await records.list(tenant="odd")] == ["c5", "c3", "c1"]
    assert [call.id for call in await records.list(tenant="odd", open_only=True)] == ["c3", "c1"]
    assert [call.id for call in await records.list(sip_call_id="c2@peer")] == ["c2"]
    assert await records.get("c9") is None
    await records.close()


async def test_old_calls_are_deleted_with_their_events_and_open_ones_are_not(store_settings: StoreSettings) -> None:
    records = Records(store_settings, now=Clock())
    await records.open()
    for name in ("old", "open", "new"):
        start(records, name)
        tell(records, events.LegAnswered(), name)
        records.recording(call_id=name, path=f"/r/{name}.wav", status="complete")
    records.ended(call_id="old", reason="busy", sip_code=486)
    records.ended(call_id="new", reason="busy", sip_code=486)
    await records.flush()
    new = await records.get("new")
    assert new is not None
    assert new.ended_at is not None
    assert await records.delete_older_than(new.ended_at) == [CallFile("old", "acme", "/r/old.wav")]
    assert {call.id for call in await records.list()} == {"open", "new"}
    assert await records.events("old") == []
    assert len(await records.events("new")) == 1
    await records.close()


@pytest.mark.parametrize(
    "url", ["nonsense", "mysteryql://x", "sqlite+nodriver:///x.db", "sqlite+aiosqlite:////proc/nowhere/x.db"]
)
async def test_a_database_that_cannot_be_is_refused_at_start(url: str) -> None:
    with pytest.raises(SettingsError, match=r"store\.url"):
        await Records(StoreSettings(url=url)).open()


async def test_a_file_that_is_no_database_is_refused_at_start(tmp_path: Path) -> None:
    (tmp_path / "records.db").write_bytes(b"something else entirely" * 100)
    with pytest.raises(SettingsError, match="not a database"):
        await Records(StoreSettings(url=f"sqlite+aiosqlite:///{tmp_path}/records.db")).open()


async def test_reading_beside_the_server_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no call records yet"):
        async with open_reader(StoreSettings(url=f"sqlite+aiosqlite:///{tmp_path}/records.db")):
            pass
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240
    (tmp_path / "records.db").touch()
    with pytest.raises(SettingsError, match="version None"):
        async with open_reader(StoreSettings(url=f"sqlite+aiosqlite:///{tmp_path}/records.db")):
            pass
