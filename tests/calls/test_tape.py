"""The recording of one call as its steps and its end see it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from sipserver.calls.recording import Recorder
from sipserver.calls.tape import Tape
from sipserver.events import Event, RecordingRefused, RecordingStarted, RecordingStopped


async def test_a_stop_that_was_cancelled_is_finished_by_the_next(tmp_path: Path) -> None:
    told: list[Event] = []
    recorder = Recorder(tmp_path)
    recorder.open()
    day = datetime.now(UTC)
    tape = Tape(recorder, tenant="acme", day=day, call_id="one", emit=told.append, note=lambda _path, _status: None)
    await tape.start()
    stopping = asyncio.create_task(tape.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)
    await tape.stop()
    await tape.stop()
    await recorder.close()
    assert [type(event) for event in told] == [RecordingStarted, RecordingStopped]


class Desk:
    """A tape, what it told, and who may say that it must not begin."""

    def __init__(self, folder: Path) -> None:
        self.told: list[Event] = []
        self.notes: list[tuple[str, str]] = []
        self.recorder = Recorder(folder)
        self.recorder.open()
        self.tape = Tape(
            self.recorder,
            tenant="acme",
            day=datetime.now(UTC),
            call_id="one",
            emit=self.told.append,
            note=lambda path, status: self.notes.append((Path(path).name, status)),
        )
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.tape.refused = lambda: asyncio.shield(self.answer)

    async def kinds(self) -> list[type[Event]]:
        await self.tape.stop()
        await self.recorder.close()
        return [type(event) for event in self.told]


async def test_one_that_may_not_begin_is_in_the_record_and_the_next_one_may(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.answer.set_result("no room")
    assert await desk.tape.act("start") == await desk.tape.start() == "no room"
    assert not desk.tape.running
    assert desk.told == [RecordingRefused("no room")] * 2
    assert desk.notes == [("", "refused")] * 2
    desk.answer = asyncio.get_running_loop().create_future()
    desk.answer.set_result("")
    assert await desk.tape.act("start") == ""
    assert desk.tape.running
    desk.answer = asyncio.get_running_loop().create_future()
    desk.answer.set_result("no room")
    assert await desk.tape.act("start") == "", "one that runs goes on"
    await desk.tape.stop()
    assert await desk.tape.start() == "no room"
    assert desk.notes[-1] == ("one.wav", "complete"), "that there is a recording stays in the record"
    assert await desk.kinds() == [
        *(RecordingRefused, RecordingRefused),
        *(RecordingStarted, RecordingStopped, RecordingRefused),
    ]


async def test_a_stop_counts_for_a_start_that_still_asks_and_two_starts_make_one(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    late = asyncio.create_task(desk.tape.start())
    await asyncio.sleep(0)
    await desk.tape.stop()
    two = [asyncio.create_task(desk.tape.start()) for _ in range(2)]
    await asyncio.sleep(0)
    desk.answer.set_result("")
    assert await asyncio.gather(late, *two) == ["", "", ""]
    assert desk.tape.running
    assert await desk.kinds() == [RecordingStarted, RecordingStopped]
    assert desk.notes == [("one.wav", "recording"), ("one.wav", "complete")]
