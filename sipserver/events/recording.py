"""What becomes of the recording."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sipserver.events.base import Event


@dataclass(frozen=True, slots=True)
class RecordingStarted(Event):
    """The call is being recorded."""

    kind: ClassVar[str] = "recording.started"
    path: str
    channels: int = 2


@dataclass(frozen=True, slots=True)
class RecordingPaused(Event):
    """Nothing is recorded for a while. at_sample: where in the recording."""

    kind: ClassVar[str] = "recording.paused"
    at_sample: int


@dataclass(frozen=True, slots=True)
class RecordingResumed(Event):
    """Recording goes on. at_sample: where in the recording."""

    kind: ClassVar[str] = "recording.resumed"
    at_sample: int


@dataclass(frozen=True, slots=True)
class RecordingStopped(Event):
    """The recording is complete. samples: its length; dropped_frames: what a slow disk cost."""

    kind: ClassVar[str] = "recording.stopped"
    path: str
    samples: int
    dropped_frames: int = 0


@dataclass(frozen=True, slots=True)
class RecordingRefused(Event):
    """A recording, or a message of voicemail, was not begun, and the call went on without: the tenant may keep no more.
    reason: which limit, and what is used of it.
    """

    kind: ClassVar[str] = "recording.refused"
    reason: str


@dataclass(frozen=True, slots=True)
class RecordingFailed(Event):
    """The call is not recorded, or no longer."""

    kind: ClassVar[str] = "recording.failed"
    path: str
    reason: str
