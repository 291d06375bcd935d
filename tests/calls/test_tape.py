"""The recording of one call as its steps and its end see it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from sipserver.calls.recording import Recorder
from sipserver.calls.tape import Tape
from sipserver.events import Event, RecordingStarted, RecordingStopped


async def test_a_stop_that_was_cancelled_is_finished_by_the_next(tmp_path: Path) -> None:
    told: list[Event] = []
    recorder = Recorder(tmp_path)
    recorder.open()
    day = datetime.now(UTC)
    tape = Tape(recorder, tenant="acme", day=day, call_id="one", emit=told.append, note=lambda _path, _status: None)
    tape.start()
    stopping = asyncio.create_task(tape.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)
    await tape.stop()
    await tape.stop()
    await recorder.close()
    assert [type(event) for event in told] == [RecordingStarted, RecordingStopped]
