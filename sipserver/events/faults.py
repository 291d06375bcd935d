"""What went wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sipserver.events.base import Event


@dataclass(frozen=True, slots=True)
class ProviderFailed(Event):
    """An engine failed or was too slow; next is the engine that took over, empty if none was left."""

    kind: ClassVar[str] = "fault.provider"
    part: str  # stt | llm | tts | vad
    engine: str
    error: str
    next: str = ""


@dataclass(frozen=True, slots=True)
class WatchdogFired(Event):
    """watchdog: agent_silent | caller_unheard | max_duration. action: retry | fallback | failed."""

    kind: ClassVar[str] = "fault.watchdog"
    watchdog: str
    action: str


@dataclass(frozen=True, slots=True)
class Fault(Event):
    """Anything else that the operator should see in the call's record."""

    kind: ClassVar[str] = "fault.other"
    where: str
    error: str
