"""How far the ticks of one media clock lie from those of another: what belongs to the same 20 ms though it came apart.

Legs of one kind run on one clock, those of two kinds on two, whose ticks may lie anywhere within each other. Owns the
distance, followed slowly, so that a clock that is some milliseconds early or late now and then keeps its partners: each
change of partners costs a tick of silence. Pure.
"""

from __future__ import annotations

_NEAR_NS = 11_500_000
"""Frames that are so near to where they are expected belong together: more than half a tick."""
_MOST_NS = 16_000_000
"""A distance that has grown to more is nearer to the next tick: drift of the two clocks. It is learnt anew then."""
_FIRST_SHARE, _SHARE = 4, 8
"""A new distance counts so much less than what is known: at first a quarter, in the end an eighth."""


class Lean:
    """ns: the distance as it is known. `fits` a frame's own, then `follow` it."""

    def __init__(self) -> None:
        self.ns = 0
        self._share = _FIRST_SHARE

    def fits(self, ahead_ns: int) -> int:
        """0: a frame that is so far ahead belongs here; otherwise -1: to an earlier tick, 1: to a later one."""
        off_ns = ahead_ns - self.ns
        return 0 if abs(off_ns) <= _NEAR_NS else 1 if off_ns > 0 else -1

    def follow(self, ahead_ns: int) -> None:
        """A frame that fitted was so far ahead."""
        self.ns += (ahead_ns - self.ns) // self._share
        self._share = min(_SHARE, self._share + 1)
        if abs(self.ns) > _MOST_NS:
            self.ns, self._share = 0, _FIRST_SHARE
