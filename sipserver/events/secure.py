"""When nothing was kept of a call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sipserver.events.base import Event


@dataclass(frozen=True, slots=True)
class SecureStarted(Event):
    """From here on nothing is kept of what is said and typed."""

    kind: ClassVar[str] = "secure.started"


@dataclass(frozen=True, slots=True)
class SecureEnded(Event):
    """reason: done | left (by a branch) | failed | call_ended. hidden: events that were left out."""

    kind: ClassVar[str] = "secure.ended"
    reason: str
    lasted_ms: int
    hidden: int = 0
