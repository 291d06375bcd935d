"""The sound of several parties, tick by tick: what each said, and what each heard of all the others.

Owns the frames that wait for those of the same 20 ms. For recordings only: what the parties really hear is mixed by the
media engine. Pure; refuses to know calls, rooms and files.
"""

from __future__ import annotations

import bisect
from collections import defaultdict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from sipserver.audio.frame import FRAME_MS, FRAME_SAMPLES, Frame
from sipserver.calls.lean import Lean

Who = TypeVar("Who", bound=Hashable)

BOUND = 10
"""Ticks that wait for somebody whose frames are late, who then counts as silent in the oldest: 200 ms."""

_TICK_NS = FRAME_MS * 1_000_000


@dataclass(slots=True)
class _Tick(Generic[Who]):
    at_ns: int
    said: dict[Who, Frame] = field(default_factory=dict)
    played: dict[Who, Frame] = field(default_factory=dict)


class Mix(Generic[Who]):
    """Frames that belong to the same 20 ms (`lean.py`) go together, one of each.

    take: told for everybody in the mix, once a tick and in order: (who, what they said, what they heard). A tick for
    which somebody has no frame is silence on their side. heard: whose voice the others hear at this moment.
    """

    def __init__(
        self, take: Callable[[Who, Frame, Frame], None], heard: Callable[[Who], bool], bound: int = BOUND
    ) -> None:
        self._take, self._heard, self._bound = take, heard, bound
        self._parties: set[Who] = set()
        self._first_ns: int | None = None
        self._leans: defaultdict[Who, Lean] = defaultdict(Lean)
        self._ticks: deque[_Tick[Who]] = deque()

    def add(self, who: Who) -> None:
        self._parties.add(who)

    def remove(self, who: Who) -> None:
        """What was said until now is told first."""
        self.flush()
        self._parties.discard(who)
        self._leans.pop(who, None)

    def hear(self, who: Who, said: Frame, played: Frame) -> None:
        """One frame of somebody, and what we played to them in the same tick."""
        tick = self._tick(who, said.at_ns)
        tick.said[who], tick.played[who] = said, played
        while self._ticks and (len(self._ticks) > self._bound or self._parties <= self._ticks[0].said.keys()):
            self._tell(self._ticks.popleft())

    def flush(self) -> None:
        """No more will come: tell what waits."""
        while self._ticks:
            self._tell(self._ticks.popleft())

    def _tick(self, who: Who, at_ns: int) -> _Tick[Who]:
        """The oldest one that has no frame of theirs yet, or a new one in its place in time."""
        lean = self._leans[who]
        for tick in self._ticks:
            if who not in tick.said and not lean.fits(at_ns - tick.at_ns):
                lean.follow(at_ns - tick.at_ns)
                return tick
        made = _Tick[Who](self._beat(at_ns - lean.ns))
        lean.follow(at_ns - made.at_ns)
        bisect.insort(self._ticks, made, key=lambda tick: tick.at_ns)
        return made

    def _beat(self, at_ns: int) -> int:
        """When a new tick is: in the steady beat that the first one began, however early or late its frame came."""
        if self._first_ns is None:
            self._first_ns = at_ns
        return self._first_ns + round((at_ns - self._first_ns) / _TICK_NS) * _TICK_NS

    def _tell(self, tick: _Tick[Who]) -> None:
        voices = {who: frame.samples.astype(np.int32) for who, frame in tick.said.items() if self._heard(who)}
        total = sum(voices.values(), np.zeros(FRAME_SAMPLES, np.int32))
        for who in self._parties:
            said = tick.said.get(who) if who in voices else None
            heard = total - voices[who] if who in voices else total
            if who in tick.played:
                heard = heard + tick.played[who].samples
            mixed = Frame(np.clip(heard, -32768, 32767).astype(np.int16), tick.at_ns)
            self._take(who, said if said is not None else Frame.silence(tick.at_ns), mixed)
