"""A sound without end: a clip that begins again where it stops, a tone, music on hold.

Owns the place in the clip and how far ahead of the media clock it is queued. Refuses to know what the sound is for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from sipserver.audio import sound_file
from sipserver.audio.frame import FRAME_MS, FRAME_SAMPLES, RATE_HZ, Samples
from sipserver.audio.playout import Clip, Playout

CHUNK_MS = 400
"""Two of these are queued at most; so a loop thread that is held up for less is not heard."""
_CHUNK = RATE_HZ * CHUNK_MS // 1000


class Loop:
    """Samples again and again. Any number of loops may share one array; nothing is copied but what plays.

    Raises ValueError for no samples at all.
    """

    def __init__(self, samples: Samples) -> None:
        if not len(samples):
            raise ValueError("there is nothing to repeat")
        self._samples = samples
        self._position = 0

    @classmethod
    async def of_file(cls, path: Path, *, longest_s: float = 600) -> Loop:
        """Raises ConfigError, as `sound_file.read` does. Safe to cancel."""
        return cls(await asyncio.to_thread(sound_file.read, path, longest_s=longest_s))

    @property
    def at_ms(self) -> int:
        """The place in the clip from which it goes on."""
        return self._position * 1000 // RATE_HZ

    def take(self, count: int) -> Samples:
        """The next `count` samples, shape (count,)."""
        taken = np.take(self._samples, np.arange(self._position, self._position + count), mode="wrap")
        self._position = (self._position + count) % len(self._samples)
        return taken

    def frames(self) -> Iterator[Samples]:
        """Endless, 20 ms each."""
        while True:
            yield self.take(FRAME_SAMPLES)

    async def play(self, playout: Playout, label: str) -> None:
        """Feed a playout until it is flushed, or this is cancelled; never more than two chunks are queued.

        Loop thread; one at a time. A flush silences it at once; cancelled without one, what is queued still plays. The
        next `play` goes on with what would have been heard next.
        """
        mark = playout.begin(label)  # holds no sound: a flush is seen even when all that was queued has been played
        queued: deque[Clip] = deque()
        try:
            while not mark.cancelled:
                clip = playout.begin(label)
                queued.append(clip)
                await clip.write(self.take(_CHUNK))
                clip.finish()
                if len(queued) > 1 and await queued[0].heard():
                    queued.popleft()
        finally:
            mark.finish()
            unheard_ms = sum(CHUNK_MS - clip.played_ms for clip in queued)
            self._position = (self._position - unheard_ms // FRAME_MS * FRAME_SAMPLES) % len(self._samples)


@asynccontextmanager
async def playing(playout: Playout, loop: Loop, label: str) -> AsyncIterator[None]:
    """Let it sound for the length of an `async with` block. Leaving flushes the playout, whatever else is queued."""
    task = asyncio.create_task(loop.play(playout, label), name=f"loop {label}")
    try:
        yield
    finally:
        task.cancel()
        playout.flush()
        await asyncio.wait({task})
