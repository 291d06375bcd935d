"""What of our sound lies with a far end that buffers it: sent, and not yet played there.

Owns the count of frames by time and by marks, and the frames themselves, so that what is played at a moment can be
told. Pure: ticks are the only time that it knows. Positions are those of the playout's queue.

A far end plays in real time what it has, so that after each tick one frame less lies there. Marks say it exactly:
before the mark at the end of a clip has come back, that clip has not been heard to its end.
"""

from __future__ import annotations

from collections import deque

_LATE_TICKS = 150
"""A mark that has not come back so long after its sound was over is not waited for any more: three seconds."""


class Ahead:
    """`sent` for each frame, `tick` every 20 ms, `mark` and `returned` for marks, `cleared` when all is thrown away."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._marks: deque[tuple[str, int, int]] = deque()  # name, position, waited since it was due
        self._number = 0
        self.played = self.threw = 0
        """Marks that came back because their sound was played, or because it was thrown away."""

    @property
    def lies(self) -> bool:
        """Whether anything may lie there."""
        return bool(self._frames or self._marks)

    @property
    def frames(self) -> int:
        """Lying there by time alone."""
        return len(self._frames)

    def sent(self, payload: bytes) -> None:
        """One frame went out: 640 bytes at 16 kHz, as we have it."""
        self._frames.append(payload)

    def tick(self) -> bytes | None:
        """20 ms are over: the frame that was played meanwhile, None: silence."""
        if not self._frames and self._marks:
            name, position, waited = self._marks[0]
            if waited >= _LATE_TICKS:
                self._marks.popleft()
            else:
                self._marks[0] = name, position, waited + 1
        return self._frames.popleft() if self._frames else None

    def mark(self, position: int) -> str:
        """The name of a new mark for the sound up to this position of the queue."""
        self._number += 1
        name = f"m{self._number}"
        self._marks.append((name, position, 0))
        return name

    def returned(self, name: str) -> bool:
        """A mark came back. True: the sound before it was played; False: it was thrown away, or is none of ours."""
        if not any(known == name for known, _, _ in self._marks):
            return False
        while self._marks and self._marks.popleft()[0] != name:
            self.played += 1
        self.played += 1
        return True

    def cleared(self) -> None:
        """The far end throws away what lies there: its marks come back unheard."""
        self._frames.clear()
        self._marks.clear()

    def unheard(self, taken: int) -> int:
        """How many of the frames taken from the queue up to this position are not heard yet."""
        by_time = len(self._frames)
        if self._marks:  # the clip of the oldest mark is not over
            return max(by_time, taken - self._marks[0][1] + 1)
        return by_time
