"""Sound of other legs on its way to this leg's own clock.

Two legs of one kind share a clock; legs of different kinds do not, so that a few frames must wait between them. Owns
that wait, what is dropped when one clock runs faster, and the sum of several sources. Refuses to know legs and codecs.
"""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable
from typing import Protocol

from sipserver.audio.frame import Frame

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # from 3.13 on the package audioop-lts takes the same name
    import audioop

WAIT_FRAMES = 2
"""So many are gathered before a source is heard, at first and whenever it ran dry: what one clock may be late."""
MOST_FRAMES = 5
"""More than these wait only when the source's clock is faster, or the other one stood still: the oldest go."""
FORGET_S = 2.0
"""A source that has been quiet for so long is over."""


class Taker(Protocol):
    """A leg of any kind, which is told the sound that it is to play."""

    def take(self, source: object, frame: Frame) -> None: ...


class _Source:
    """frames: append on the loop, popleft on the clock thread. flows: clock thread."""

    __slots__ = ("flows", "frames", "given_s", "key")

    def __init__(self, key: object) -> None:
        self.key = key
        self.frames: deque[bytes] = deque(maxlen=MOST_FRAMES)
        self.flows = False
        self.given_s = 0.0

    def pull(self) -> bytes | None:
        waiting = len(self.frames)
        if not self.flows and waiting < WAIT_FRAMES:
            return None
        try:
            payload = self.frames.popleft()
        except IndexError:
            self.flows = False
            return None
        self.flows = True
        return payload


class Inlet:
    """`put` on the loop, `pull` on the media clock's thread or the loop; they share what is atomic under the GIL alone.

    Overflow: beyond MOST_FRAMES the oldest frame of a source goes, and is counted in `dropped`. Payloads: 640 bytes.
    """

    __slots__ = ("_clock", "_sources", "dropped")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sources: tuple[_Source, ...] = ()
        self.dropped = 0

    def put(self, source: object, payload: bytes) -> None:
        """20 ms of a source, known by its identity."""
        now_s = self._clock()
        for known in self._sources:
            if known.key is source:
                break
        else:
            known = _Source(source)
            known.given_s = now_s
            self._sources = (*(each for each in self._sources if now_s - each.given_s < FORGET_S), known)
        if len(known.frames) == MOST_FRAMES:
            self.dropped += 1
        known.frames.append(payload)
        known.given_s = now_s

    def pull(self) -> bytes | None:
        """The sum of what the sources have for this tick; None: nothing. Never blocks."""
        mixed: bytes | None = None
        for source in self._sources:
            payload = source.pull()
            if payload is not None:
                mixed = payload if mixed is None else audioop.add(mixed, payload, 2)
        return mixed


def joined(one: bytes | None, other: bytes | None) -> bytes | None:
    """The sum of two frames of which either may be missing."""
    if one is None or other is None:
        return other if one is None else one
    return audioop.add(one, other, 2)
