"""What was said so far on a line, as bursts of sound above its noise: how many, how long, and how long ago.

Owns the judgement of levels. Refuses to know tones (the caller marks the frames that hold one) and what a greeting
means. All that was heard is judged anew each time: the floor of noise is known better the longer one listens, and early
words are then found again above it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sipserver.audio.frame import FRAME_MS

Levels = NDArray[np.float32]

_FLOOR_PART = 0.1
"""So many of the frames are quieter than what is called the floor: even a talker pauses for breath."""
_DIGITAL_SILENCE_DBFS = -80.0
"""Below is no noise of a room but a line that carries nothing yet; it says nothing about the floor."""
_ABOVE_FLOOR_DB, _BELOW_TOP_DB = 7.0, 28.0
_TOP_FRAMES = 5
_STEADY_DB, _STEADY_MS = 3.0, 300
"""A sound that keeps its level so well for so long is noise."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """words: bursts of sound. longest_ms, voiced_ms: of one of them, of all. silence_ms: since the last one.

    contrast_db: how far the silence after it lies below the words.
    """

    words: int = 0
    start_ms: int = 0
    end_ms: int = 0
    longest_ms: int = 0
    voiced_ms: int = 0
    silence_ms: int = 0
    contrast_db: float = 0.0

    @property
    def duration_ms(self) -> int:
        """From the first word's beginning to the last one's end."""
        return self.end_ms - self.start_ms


def greeting_in(
    levels: Levels, toned: NDArray[np.bool_], *, min_word_ms: int, between_words_ms: int, quietest_dbfs: float
) -> Greeting:
    """levels: dBFS of every 20 ms so far; toned: which of them hold a steady tone. Pure; about 100 us.

    Sounds shorter than min_word_ms are clicks; gaps shorter than between_words_ms part no words; what is softer than
    quietest_dbfs is no voice whatever the floor.
    """
    threshold = _threshold(levels[~toned & (levels > _DIGITAL_SILENCE_DBFS)], quietest_dbfs)
    voiced = ((levels >= threshold) & ~toned).view(np.int8)
    edges: list[int] = np.flatnonzero(np.diff(voiced, prepend=np.int8(0), append=np.int8(0))).tolist()
    words = [
        (start, end)
        for start, end in _joined(edges, between_words_ms // FRAME_MS)
        if (end - start) * FRAME_MS >= min_word_ms and not _is_steady(levels[start:end])
    ]
    if not words:
        return Greeting()
    end = words[-1][1]
    after = levels[end:][~toned[end:]]
    loud = float(np.mean([levels[start:stop].mean() for start, stop in words]))
    return Greeting(
        words=len(words),
        start_ms=words[0][0] * FRAME_MS,
        end_ms=end * FRAME_MS,
        longest_ms=FRAME_MS * max(stop - start for start, stop in words),
        voiced_ms=FRAME_MS * sum(stop - start for start, stop in words),
        silence_ms=FRAME_MS * (len(levels) - end),
        contrast_db=loud - float(after.mean()) if len(after) else 0.0,
    )


def _threshold(heard: Levels, quietest_dbfs: float) -> float:
    if not len(heard):
        return quietest_dbfs
    ordered = np.sort(heard)
    floor = float(ordered[int(_FLOOR_PART * len(ordered))])
    top = float(ordered[-min(_TOP_FRAMES, len(ordered))])
    return max(floor + _ABOVE_FLOOR_DB, top - _BELOW_TOP_DB, quietest_dbfs)


def _joined(edges: list[int], gap: int) -> list[tuple[int, int]]:
    """Bursts [start, end), with gaps of fewer than `gap` frames closed."""
    bursts: list[tuple[int, int]] = []
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if bursts and start - bursts[-1][1] < gap:
            bursts[-1] = (bursts[-1][0], end)
        else:
            bursts.append((start, end))
    return bursts


def _is_steady(levels: Levels) -> bool:
    if len(levels) * FRAME_MS < _STEADY_MS:
        return False
    ordered = np.sort(levels[1:-1])
    return bool(ordered[-1 - len(ordered) // 10] - ordered[len(ordered) // 10] < _STEADY_DB)
