"""What the caller says in one turn: a bounded buffer with pre-roll. Owns samples; refuses to judge them."""

from __future__ import annotations

from collections import deque

import numpy as np

from sipserver.audio.frame import FRAME_MS, Frame, Samples

PRE_ROLL_MS = 300
MAX_S = 30
_KEPT_MS = 1_500
"""Frames kept while nobody speaks: the pre-roll and what the voice detector may lag behind."""


class Utterance:
    """One caller's samples. Loop thread; nothing blocks.

    Overflow: beyond 30 s the oldest samples are dropped, since the end of a long turn is what has to be answered.
    """

    def __init__(self, pre_roll_ms: int = PRE_ROLL_MS, max_s: float = MAX_S) -> None:
        self._pre_roll_ns = pre_roll_ms * 1_000_000
        self._idle_frames = max(_KEPT_MS, pre_roll_ms) // FRAME_MS
        self._max_frames = int(max_s * 1000) // FRAME_MS
        self._frames: deque[Frame] = deque(maxlen=self._max_frames)
        self._begun = False

    @property
    def begun(self) -> bool:
        return self._begun

    @property
    def audio_ms(self) -> int:
        return FRAME_MS * len(self._frames) if self._begun else 0

    def hear(self, frame: Frame) -> None:
        """Keep a reference to the frame (frames are read-only by convention, so nothing is copied)."""
        self._frames.append(frame)
        if not self._begun and len(self._frames) > self._idle_frames:
            self._frames.popleft()

    def begin(self, at_ns: int) -> None:
        """A voice began at at_ns: keep everything from the pre-roll on. Does nothing within an utterance."""
        if self._begun:
            return
        first_ns = at_ns - self._pre_roll_ns
        while self._frames and self._frames[0].at_ns < first_ns:
            self._frames.popleft()
        self._begun = True

    def samples(self) -> Samples:
        """All of it so far, shape (n,), a copy. Empty before `begin`."""
        if not self._begun or not self._frames:
            return np.zeros(0, np.int16)
        return np.concatenate([frame.samples for frame in self._frames])

    def drop(self) -> None:
        """The utterance is over or was none. Recent frames stay as pre-roll for the next."""
        self._begun = False
        while len(self._frames) > self._idle_frames:
            self._frames.popleft()
