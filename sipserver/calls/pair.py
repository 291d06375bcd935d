"""The sound of two parties, side by side: what both said in the same 20 ms goes into one tick of the recording.

Owns the frames that wait for their partner. Pure; refuses to know legs, files and who wants the sound.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from sipserver.audio.frame import Frame
from sipserver.calls.lean import Lean

Take = Callable[[Frame, Frame], None]
"""(left, right) of one tick."""

BOUND = 10
"""Frames by which one party may be ahead of the other, whose ticks then count as lost: 200 ms."""


class Pair:
    """Frames that belong to the same 20 ms (`lean.py`) go together, and a frame whose partner is lost with silence.

    Overflow: what waits beyond `bound` goes with silence too. Order is kept, and no frame is told twice or dropped.
    """

    def __init__(self, take: Take, bound: int = BOUND) -> None:
        self._take = take
        self._bound = bound
        self._lean = Lean()
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
            fits = self._lean.fits(ahead_ns)
            if fits > 0:
                self._rights_alone()
            elif fits < 0:
                self._lefts_alone()
            else:
                self._lean.follow(ahead_ns)
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
