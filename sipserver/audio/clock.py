"""The media clock of legs whose sound passes through Python: each of them is told every 20 ms.

One timer on the loop. Legs are spread over four phases, so that hundreds of them do not all work in the same
millisecond. Deadlines are absolute: the clock does not drift, and a late tick is followed by the next one at once, but
what was missed by more than a moment is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sipserver.audio.frame import FRAME_MS
from sipserver.log import logger

Tick = Callable[[], None]

PHASES = 4
_STEP_S = FRAME_MS / 1000 / PHASES
_MOST_LATE_S = 0.2
"""A loop that stood still for longer does not work off what it missed: nobody would hear it in time."""


class LegClock:
    """Loop thread. Stands still while nobody has joined.

    at_ns: when the tick of the moment, or the last one, was due, by `loop.time()`: what happens in a tick is stamped
    with it, whatever the loop did before.
    """

    def __init__(self) -> None:
        self._ticks: list[dict[object, Tick]] = [{} for _ in range(PHASES)]
        self._phase = 0
        self._due_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.at_ns = 0
        self.missed = 0
        """Ticks left out since the start, of all phases."""

    @property
    def legs(self) -> int:
        return sum(map(len, self._ticks))

    def join(self, leg: object, tick: Tick) -> None:
        """Call `tick` every 20 ms from now on. Idempotent."""
        if not any(leg in phase for phase in self._ticks):
            min(self._ticks, key=len)[leg] = tick
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._due_s = loop.time() + _STEP_S
            self._timer = loop.call_at(self._due_s, self._run)

    def leave(self, leg: object) -> None:
        """Idempotent."""
        for phase in self._ticks:
            phase.pop(leg, None)
        if self._timer is not None and not self.legs:
            self._timer.cancel()
            self._timer = None

    def _run(self) -> None:
        loop = asyncio.get_running_loop()
        self.at_ns = round(self._due_s * 1e9)
        phase = self._ticks[self._phase]
        for leg, tick in tuple(phase.items()):
            try:
                if leg in phase:  # another one's tick may have ended it
                    tick()
            except Exception:
                logger("audio").exception("a tick of a leg failed")
        self._phase = (self._phase + 1) % PHASES
        self._due_s += _STEP_S
        late_s = loop.time() - self._due_s
        if late_s > _MOST_LATE_S:
            self.missed += int(late_s / _STEP_S)
            self._due_s = loop.time() + _STEP_S
        if self.legs:
            self._timer = loop.call_at(self._due_s, self._run)
        else:
            self._timer = None
