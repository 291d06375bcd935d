"""What the database does not take waits on disk, in order, for this process or for the next one."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import structlog

from sipserver import events, spool
from sipserver.journal import Entry
from sipserver.store.backlog import Backlog
from sipserver.store.keeper import Keeper
from sipserver.store.ledger import Applied, Ledger
from sipserver.store.records import Records
from sipserver.store.settings import StoreSettings
from tests.fakes.told import start, tell
from tests.store.test_faults import file_of, locked
from tests.store.told import gone, one_call, unfinished


class Moody:
    """A ledger that can be away. taken: what it was given while it was there."""

    def __init__(self) -> None:
        self.away = False
        self.taken: list[Entry] = []
        self.answer = Applied()

    async def apply(self, entries: Sequence[Entry]) -> Applied:
        if self.away:
            raise OSError("away")
        self.taken += entries
        return self.answer


class Kept:
    """A keeper on a folder. applied: what `on_applied` was told."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Moody()
        self.backlog = Backlog(folder, "one:5060")
        self.applied: list[Applied] = []
        self.keeper = Keeper(self.ledger, self.backlog, on_applied=self._note)  # type: ignore[arg-type]

    async def _note(self, applied: Applied) -> None:
        self.applied.append(applied)

    async def catch_up(self) -> None:
        while self.keeper.depth:
            assert await self.keeper.catch_up()


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    made = Kept(tmp_path)
    yield made
    await made.backlog.close()


ENTRIES = one_call(digits=500)


async def test_order_is_kept_while_it_is_away_and_after(kept: Kept) -> None:
    keeper, ledger = kept.keeper, kept.ledger
    assert await keeper.keep(ENTRIES[:10])
    ledger.away = True
    assert await keeper.keep(ENTRIES[10:300])
    assert not await keeper.catch_up()
    ledger.away = False
    assert await keeper.keep(ENTRIES[300:400])
    assert ledger.taken == ENTRIES[:10]
    assert (keeper.depth, keeper.spooled, keeper.failures, keeper.oldest_at) == (390, 390, 2, ENTRIES[10].at)
    assert await keeper.catch_up()
    assert keeper.oldest_at == ledger.taken[-1].at
    await kept.catch_up()
    assert await keeper.keep(ENTRIES[400:])
    assert ledger.taken == ENTRIES
    assert (keeper.depth, keeper.oldest_at, keeper.failing) == (0, None, False)


async def test_the_next_process_finds_what_waits(kept: Kept, tmp_path: Path) -> None:
    kept.ledger.away = True
    assert await kept.keeper.keep(ENTRIES[:100])
    await kept.backlog.close()
    following = Kept(tmp_path)
    assert following.keeper.depth == 100
    assert await following.keeper.keep(ENTRIES[100:])
    await following.catch_up()
    assert following.ledger.taken == ENTRIES
    await following.backlog.close()


async def test_a_full_disk_leaves_it_to_the_caller_and_is_logged_once(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    kept.ledger.away = True
    with structlog.testing.capture_logs() as logs, monkeypatch.context() as patched:
        patched.setattr(spool.Spool, "append", full)
        assert [await kept.keeper.keep(ENTRIES[:5]) for _ in range(3)] == [False] * 3
        assert not kept.keeper.durable
    assert [entry["event"] for entry in logs] == [
        "call records cannot be written; calls go on, entries are kept",
        "call records cannot be written to the disk either",
    ]
    assert await kept.keeper.keep(ENTRIES[:5])
    assert kept.keeper.durable


async def test_lines_that_are_no_entries_are_counted_and_passed_over(kept: Kept, tmp_path: Path) -> None:
    kept.ledger.away = True
    await kept.keeper.keep(ENTRIES[:3])
    await kept.backlog.close()
    (segment,) = tmp_path.rglob("*.jsonl")  # noqa: ASYNC240
    segment.write_bytes(b"half a li\n" + segment.read_bytes())
    following = Kept(tmp_path)
    await following.catch_up()
    assert (following.keeper.strays, following.ledger.taken) == (1, ENTRIES[:3])
    await following.backlog.close()


async def test_recordings_are_mended_before_entries_count_as_kept(kept: Kept) -> None:
    kept.ledger.answer = Applied(crashed=[], broken=[])
    await kept.keeper.keep(ENTRIES[:3])
    assert kept.applied == []
    kept.ledger.answer = Applied(broken=[None])  # type: ignore[list-item]
    kept.ledger.away = True
    await kept.keeper.keep([gone()])
    kept.ledger.away = False
    await kept.catch_up()
    assert kept.applied == [kept.ledger.answer]


# --- a single server --------------------------------------------------------------------------------------------------


async def test_a_single_server_stops_while_its_database_is_locked_and_loses_nothing(
    sqlite_settings: StoreSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sipserver.store.sqlite_driver.BUSY_TIMEOUT_MS", 20)
    records = Records(sqlite_settings, node="one", spool=tmp_path / "spool")
    await records.open()
    start(records)
    await records.flush()
    with structlog.testing.capture_logs() as logs, locked(file_of(sqlite_settings)):
        for number in range(300):
            tell(records, events.DigitReceived("1"), at_ms=number)
        records.recording(call_id="c1", path="/r/1.wav", status="recording")
        await records.close()
    assert logs[-1]["event"] == "call records wait on disk for the next start"
    assert logs[-1]["entries"] == 301

    following = Records(sqlite_settings, node="one", spool=tmp_path / "spool")
    await following.open()
    (swept,) = await following.sweep_crashed()
    assert (swept.call_id, swept.recording_path) == ("c1", "/r/1.wav")
    call = await following.get("c1")
    assert call is not None
    assert (call.digits, call.events, call.end_reason) == (300, 301, "crash")
    await following.close()
    assert not (tmp_path / "spool/one").exists()


async def test_a_burst_beyond_the_queue_loses_nothing_where_there_is_a_spool(
    sqlite_settings: StoreSettings, tmp_path: Path
) -> None:
    settings = sqlite_settings.model_copy(update={"queue": 100})
    records = Records(settings, spool=tmp_path / "spool")
    await records.open()
    start(records)
    for number in range(900):
        tell(records, events.DigitReceived("1"), at_ms=number)
    assert await records.flush()
    assert (records.dropped, len(await records.events("c1"))) == (0, 900)
    await records.close()


async def test_the_real_ledger_and_the_disk(sqlite_settings: StoreSettings, tmp_path: Path) -> None:
    """A dead process' entries and the news of its death wait together; the end that follows from it is told, too."""
    heard: list[Entry] = []

    async def hear(entries: Sequence[Entry]) -> None:
        heard.extend(entries)

    records = Records(sqlite_settings)
    await records.open()
    backlog = Backlog(tmp_path / "spool", "one")
    keeper = Keeper(Ledger(records._database), backlog, tell=hear)
    assert await keeper.set_aside([*unfinished(), gone()])
    while keeper.depth:
        assert await keeper.catch_up()
    call = await records.get("c1")
    assert call is not None
    assert call.end_reason == "crash"
    assert [entry.fields.get("kind") for entry in heard][-1] == "call.ended"
    await backlog.close()
    await records.close()
