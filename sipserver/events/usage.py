"""What a call used up of engines that count: told when it was used, whatever became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sipserver.events.base import Event


@dataclass(frozen=True, slots=True)
class EngineUsed(Event):
    """Something was sent to an engine that took it. part: stt (quantity in ms of sound) | tts (in characters). Sound
    out of the cache is none, nor what an engine refused. What language models used is in `ModelSpan`.
    """

    kind: ClassVar[str] = "usage.engine"
    part: str
    quantity: int
    engine: str
    vendor: str = ""
    model: str = ""
