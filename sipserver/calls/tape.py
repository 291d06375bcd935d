"""The recording of one call: when it runs, where the file lies, and what the call's record says about it.

Owns at most one running `Recording` and the names of the call's files. Refuses to write: the recorder's thread does.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path

from sipserver.audio.frame import Frame
from sipserver.calls.recording import Recorder, Recording
from sipserver.dialplan.steps.sound import RecordAction
from sipserver.events import (
    Emit,
    RecordingFailed,
    RecordingPaused,
    RecordingRefused,
    RecordingResumed,
    RecordingStarted,
    RecordingStopped,
)

NoteRecording = Callable[[str, str], None]
"""(path, status: recording | complete | failed | refused), for the call's record; a refused one has no path."""


async def _never() -> str:
    return ""


def file_name(tenant: str, day: datetime, call_id: str, number: int) -> Path:
    """`<tenant>/<date>/<call_id>.wav`; further recordings of the call end in -2, -3, ... `Recorder.place` may add
    `.enc`.
    """
    folder = re.sub(r"[^A-Za-z0-9_-]", "_", tenant) or "_"
    suffix = f"-{number}" if number > 1 else ""
    return Path(folder) / f"{day:%Y-%m-%d}" / f"{call_id}{suffix}.wav"


class Tape:
    """All methods: loop thread. An action that changes nothing (pause while nothing runs) is ignored."""

    def __init__(
        self, recorder: Recorder, *, tenant: str, day: datetime, call_id: str, emit: Emit, note: NoteRecording
    ) -> None:
        self._recorder = recorder
        self._tenant, self._day, self._call_id = tenant, day, call_id
        self._emit, self._note = emit, note
        self._running: Recording | None = None
        self._number = 0
        self._wish = 0
        """Grows with every start and stop: one that had to wait is out of date when another one has come."""
        self._secured = False
        self._paused = False
        """By the dialplan; a recording is silent then and while it is secured."""
        self.watchers: list[Callable[[], None]] = []
        """Called when a recording begins or has ended."""
        self.refused: Callable[[], Awaitable[str]] = _never
        """Asked before one begins: why it may not; empty: it may."""

    @property
    def running(self) -> bool:
        return self._running is not None

    def hear(self, inbound: Frame, outbound: Frame) -> None:
        """One media tick."""
        if self._running is not None:
            self._running.hear(inbound, outbound)

    async def act(self, action: RecordAction, *, stereo: bool = True) -> str:
        """start | stop | pause | resume, as the step `record` says it. One that changes nothing is no mistake. Returns
        why nothing is recorded that should be; empty: it is as was wanted.
        """
        match action:
            case "start":
                return await self.start(stereo=stereo)
            case "pause":
                self.pause()
            case "resume":
                self.resume()
            case "stop":
                await self.stop()
        return ""

    async def start(self, *, stereo: bool = True) -> str:
        """Begin a file, or go on with a paused one. Returns why it may not be, which the record says then; empty: it
        runs, or somebody has stopped it meanwhile. Safe to cancel.
        """
        self._paused = False
        if self._running is not None:
            self._settle()
            return ""
        self._wish = wish = self._wish + 1
        if reason := await self.refused():
            if self._wish == wish:
                self.refuse(reason)
                if not self._number:
                    self._note("", "refused")
            return reason
        if self._wish == wish:
            self._begin(stereo)
        return ""

    def refuse(self, reason: str) -> None:
        """Something of the call is not recorded."""
        self._emit(RecordingRefused(reason))

    def _begin(self, stereo: bool) -> None:
        self._number += 1
        path = self._recorder.place(file_name(self._tenant, self._day, self._call_id, self._number))
        self._running = self._recorder.start(
            path, tenant=self._tenant, stereo=stereo, on_failure=lambda why: self._failed(path, why)
        )
        self._changed()
        self._emit(RecordingStarted(path=str(path), channels=2 if stereo else 1))
        self._note(str(path), "recording")
        self._settle()

    def pause(self) -> None:
        if self._running is not None:
            self._paused = True
            self._settle()

    def resume(self) -> None:
        self._paused = False
        self._settle()

    def secure(self, secured: bool) -> None:
        """Whatever else is asked for, record silence until that is over."""
        self._secured = secured
        self._settle()

    def _settle(self) -> None:
        recording, silent = self._running, self._paused or self._secured
        if recording is None or recording.paused == silent:
            return
        if silent:
            self._emit(RecordingPaused(at_sample=recording.pause()))
        else:
            self._emit(RecordingResumed(at_sample=recording.resume()))

    async def stop(self) -> None:
        """Close the file and wait for it (a few seconds at most). Safe to cancel: the next stop goes on waiting."""
        self._wish += 1
        recording = self._running
        if recording is None:
            return
        finished = await recording.stop()
        if self._running is not recording:
            return
        self._running = None
        self._changed()
        path = str(recording.path)
        if finished.failure:
            self._note(path, "failed")
        else:
            self._note(path, "complete")
            self._emit(RecordingStopped(path=path, samples=finished.samples, dropped_frames=finished.dropped_frames))

    def _changed(self) -> None:
        for watcher in self.watchers:
            watcher()

    def _failed(self, path: Path, why: str) -> None:
        """The call goes on without a recording, and its record says so."""
        if self._running is not None and self._running.path == path:
            self._running = None
            self._changed()
        self._emit(RecordingFailed(path=str(path), reason=why))
        self._note(str(path), "failed")
