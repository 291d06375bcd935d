"""What a call used up of engines that count, told when it was used; and limits of its tenant that come near."""

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


@dataclass(frozen=True, slots=True)
class LimitExceeded(Event):
    """A limit of the tenant was reached: of this call, or of something that belongs to none. Told once a minute.
    limit: as in the settings (calls, calls_per_s, minutes_a_day, spend_a_day, spend_a_month, api_per_s, storage_bytes).
    most, used: as the settings count it, decimal.
    """

    kind: ClassVar[str] = "limit.exceeded"
    limit: str
    most: str
    used: str = ""


@dataclass(frozen=True, slots=True)
class LimitNear(Event):
    """Four fifths are used: of minutes or spend, told once for each day or month, of a call; of calls at a time or of
    storage, told of no call, and again only after less than 65 % were used.
    """

    kind: ClassVar[str] = "limit.near"
    limit: str
    most: str
    used: str
