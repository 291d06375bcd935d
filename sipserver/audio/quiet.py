"""When a message is over: nobody has spoken for a while, or the network says that the caller hung up.

Owns that decision, for recordings of any length. Many gateways and analogue lines tell a hang-up by nothing but a busy
or dial tone: a message must end there, without the tone in it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sipserver.audio.cadence import Cadence, Signal, is_key, is_progress
from sipserver.audio.frame import FRAME_MS, Frame
from sipserver.audio.greeting import Levels, greeting_in
from sipserver.audio.levels import FLOOR_DBFS
from sipserver.audio.tone_watch import Tone, ToneWatch

_WINDOW = 10_000 // FRAME_MS
"""What the floor of noise is judged from: a caller walks from a street into a house."""
_EVERY_FRAMES = 5
_TONE_MS = 100
_DIAL_TONE_MS = 3000
_QUIETEST_DBFS = -52.0
_MIN_WORD_MS, _BETWEEN_WORDS_MS = 100, 60


class Why(enum.StrEnum):
    SILENCE = "silence"
    TONE = "tone"  # busy, congestion or dial tone


@dataclass(frozen=True, slots=True)
class Ended:
    """at_ms: when it was noticed. speech_ms: where the last word ended, 0 when nothing was said; what follows may be
    cut away. Both since the first frame.
    """

    why: Why
    at_ms: int
    speech_ms: int


class Quiet:
    """Listens to a message that is recorded. Feed frames in order; one thread. About 4 ms of CPU a second of sound.

    silence_ms: so much silence ends it, at the beginning too. Holds 3 kB, however long it takes.
    """

    def __init__(self, silence_ms: int) -> None:
        self._silence_ms = silence_ms
        self._tones = ToneWatch()
        self._cadence = Cadence()
        self._levels: Levels = np.full(_WINDOW, FLOOR_DBFS, np.float32)
        self._toned: NDArray[np.bool_] = np.zeros(_WINDOW, np.bool_)
        self._count = 0
        self.speech_ms = 0
        """Where the last word so far ended."""
        self.voiced_ms = 0
        """How much was said within any ten seconds, at the most: what tells a message from a click."""
        self.ended: Ended | None = None

    def hear(self, frame: Frame) -> Ended | None:
        """Take 20 ms. Returns the end from the frame on in which it was noticed; later frames change nothing."""
        if self.ended is not None:
            return self.ended
        tone = self._tones.hear(frame)
        self._keep(self._tones.look.level_dbfs)
        if tone is not None and (tone.duration_ms >= _TONE_MS or is_key(tone)):
            self._mark(tone)
            if self._cadence.hear(tone) is Signal.BUSY:
                self._end(Why.TONE)
        sounding = self._tones.sounding
        if sounding is not None and is_progress(sounding) and sounding.duration_ms >= _DIAL_TONE_MS:
            self._end(Why.TONE)
        if self._count % _EVERY_FRAMES == 0 and self.ended is None:
            self._listen(sounding)
            if self._tones.at_ms - self.speech_ms >= self._silence_ms:
                self._end(Why.SILENCE)
        return self.ended

    def _end(self, why: Why) -> None:
        self.ended = Ended(why, self._tones.at_ms, self.speech_ms)

    def _keep(self, level_dbfs: float) -> None:
        if self._count >= _WINDOW:
            self._levels[:-1] = self._levels[1:]
            self._toned[:-1] = self._toned[1:]
            self._toned[-1] = False
        self._levels[min(self._count, _WINDOW - 1)] = level_dbfs
        self._count += 1

    @property
    def _first(self) -> int:
        """The frame that stands first in the window."""
        return max(0, self._count - _WINDOW)

    def _mark(self, tone: Tone) -> None:
        first, last = tone.start_ms // FRAME_MS - 1, tone.end_ms // FRAME_MS + 3
        self._toned[max(0, first - self._first) : max(0, last - self._first)] = True

    def _listen(self, sounding: Tone | None) -> None:
        count = min(self._count, _WINDOW)
        toned = self._toned[:count]
        if sounding is not None:
            toned = toned.copy()
            toned[max(0, sounding.start_ms // FRAME_MS - 1 - self._first) :] = True
        said = greeting_in(
            self._levels[:count],
            toned,
            min_word_ms=_MIN_WORD_MS,
            between_words_ms=_BETWEEN_WORDS_MS,
            quietest_dbfs=_QUIETEST_DBFS,
        )
        self.voiced_ms = max(self.voiced_ms, said.voiced_ms)
        if said.words:
            self.speech_ms = max(self.speech_ms, FRAME_MS * self._first + said.end_ms)
