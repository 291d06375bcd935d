"""What the servers of all kinds of streams are given: the settings, the gate, the clock, and who takes legs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sipserver.audio.clock import LegClock
from sipserver.gate.gate import Gate
from sipserver.streams.leg import Accept
from sipserver.streams.settings import StreamSettings


@dataclass(frozen=True, slots=True)
class Doorway:
    """What the servers of all kinds share. accept: takes a leg when its WebSocket begins. room: whether one more
    call may come now. home: put into addresses of what belongs to a call that lives, so that it comes to the process
    that has the call (`fleet.relay`); empty where there is one process.
    """

    settings: StreamSettings
    gate: Gate
    clock: LegClock
    accept: Accept
    room: Callable[[], bool]
    home: str = ""
