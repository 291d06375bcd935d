"""What becomes of the recording."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sipserver.events.base import Event


@dataclass(frozen=True, slots=True)
class RecordingStarted(Event):
    kind: ClassVar[str] = "recording.started"
    path: str
    channels: int = 2


@dataclass(frozen=True, slots=True)
class RecordingPaused(Event):
    kind: ClassVar[str] = "recording.paused"
    at_sample: int


@dataclass(frozen=True, slots=True)
class RecordingResumed(Event):
    kind: ClassVar[str] = "recording.resumed"
    at_sample: int


@dataclass(frozen=True, slots=True)
class RecordingStopped(Event):
    kind: ClassVar[str] = "recording.stopped"
    path: str
    samples: int
    dropped_frames: int = 0


@dataclass(frozen=True, slots=True)
class RecordingFailed(Event):
    kind: ClassVar[str] = "recording.failed"
    path: str
    reason: str
