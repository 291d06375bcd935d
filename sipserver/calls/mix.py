"""The sound of several parties, tick by tick: what each said, and what each heard of all the others.

Owns the frames that wait for those of the same 20 ms. For recordings only: what the parties really hear is mixed by the
media engine. Pure; refuses to know calls, rooms and files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from sipserver.audio.frame import FRAME_MS, FRAME_SAMPLES, Frame

Who = TypeVar("Who", bound=Hashable)

BOUND = 10
"""Ticks that wait for somebody whose frames are late, who then counts as silent in the oldest: 200 ms."""

_HALF_NS = FRAME_MS * 1_000_000 // 2


@dataclass(slots=True)
class _Tick(Generic[Who]):
    at_ns: int
    said: dict[Who, Frame] = field(default_factory=dict)
    played: dict[Who, Frame] = field(default_factory=dict)


class Mix(Generic[Who]):
    """All legs run on one media clock: frames that came within half a tick of each other belong together.

    take: told for everybody in the mix, once a tick and in order: (who, what they said, what they heard). A tick for
    which somebody has no frame is silence on their side. heard: whose voice the others hear at this moment.
    """

    def __init__(
        self, take: Callable[[Who, Frame, Frame], None], heard: Callable[[Who], bool], bound: int = BOUND
    ) -> None:
        self._take, self._heard, self._bound = take, heard, bound
        self._parties: set[Who] = set()
        self._ticks: deque[_Tick[Who]] = deque()

    def add(self, who: Who) -> None:
        self._parties.add(who)

    def remove(self, who: Who) -> None:
        """What was said until now is told first."""
        self.flush()
        self._parties.discard(who)

    def hear(self, who: Who, said: Frame, played: Frame) -> None:
        """One frame of somebody, and what we played to them in the same tick."""
        tick = self._tick(said.at_ns)
        if who in tick.said:  # two frames within half a tick: the leg was late with one of them
            tick = _Tick(said.at_ns)
            self._ticks.append(tick)
        tick.said[who], tick.played[who] = said, played
        while self._ticks and (len(self._ticks) > self._bound or self._parties <= self._ticks[0].said.keys()):
            self._tell(self._ticks.popleft())

    def flush(self) -> None:
        """No more will come: tell what waits."""
        while self._ticks:
            self._tell(self._ticks.popleft())

    def _tick(self, at_ns: int) -> _Tick[Who]:
        for tick in self._ticks:
            if abs(at_ns - tick.at_ns) <= _HALF_NS:
                return tick
        self._ticks.append(_Tick(at_ns))
        return self._ticks[-1]

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
