"""The sound of two parties, side by side: what both said in the same 20 ms goes into one tick of the recording.

Owns the frames that wait for their partner. Pure; refuses to know legs, files and who wants the sound.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from sipserver.audio.frame import Frame

Take = Callable[[Frame, Frame], None]
"""(left, right) of one tick."""

BOUND = 10
"""Frames by which one party may be ahead of the other, whose ticks then count as lost: 200 ms."""

_NEAR_NS = 11_500_000
"""Frames so near to each other belong together. More than half a tick, so that of two clocks whose ticks lie half a
tick apart none changes its partners whenever it is a millisecond early or late: each change costs a tick of silence.
"""


class Pair:
    """Legs of one kind run on one media clock, those of two kinds on two: frames that came within 11.5 ms of each other
    belong together, and a frame whose partner is lost goes with silence.

    Overflow: what waits beyond `bound` goes with silence too. Order is kept, and no frame is told twice or dropped.
    """

    def __init__(self, take: Take, bound: int = BOUND) -> None:
        self._take = take
        self._bound = bound
        self._lefts: deque[Frame] = deque()
        self._rights: deque[Frame] = deque()

    def left(self, frame: Frame) -> None:
        self._lefts.append(frame)
        self._settle()

    def right(self, frame: Frame) -> None:
        self._rights.append(frame)
        self._settle()

    def flush(self) -> None:
        """No more will come: tell what waits."""
        while self._lefts or self._rights:
            self._lefts_alone() if self._lefts else self._rights_alone()

    def _settle(self) -> None:
        while self._lefts and self._rights:
            ahead_ns = self._lefts[0].at_ns - self._rights[0].at_ns
            if ahead_ns > _NEAR_NS:
                self._rights_alone()
            elif ahead_ns < -_NEAR_NS:
                self._lefts_alone()
            else:
                self._take(self._lefts.popleft(), self._rights.popleft())
        while len(self._lefts) > self._bound:
            self._lefts_alone()
        while len(self._rights) > self._bound:
            self._rights_alone()

    def _lefts_alone(self) -> None:
        left = self._lefts.popleft()
        self._take(left, Frame.silence(left.at_ns))

    def _rights_alone(self) -> None:
        right = self._rights.popleft()
        self._take(Frame.silence(right.at_ns), right)
