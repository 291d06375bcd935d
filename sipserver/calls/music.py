"""What somebody hears while they wait: ringing, or music.

Owns the sound's coming again and again. Refuses to know why somebody waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

from sipserver.audio import sound_file, tones
from sipserver.audio.frame import Samples
from sipserver.audio.loop import Loop
from sipserver.audio.playout import Playout


@cache
def ringing() -> Samples:
    """One ring and its pause."""
    return tones.ringback()


async def read(path: Path) -> Samples:
    """Music of a file. Raises ConfigError when it cannot be read or holds no sound."""
    return await asyncio.to_thread(sound_file.read, path)


class Music:
    """The same sound again and again on one playout, between `start` and `stop`. Loop thread.

    `stop` flushes the playout: what else was queued there goes too. Begun again it goes on where it was stopped.
    """

    def __init__(self, playout: Playout, samples: Samples, name: str) -> None:
        self._playout = playout
        self._loop = Loop(samples) if len(samples) else None
        self._name = name
        self._task: asyncio.Task[None] | None = None
        self._stopped: set[asyncio.Task[None]] = set()

    @property
    def on(self) -> bool:
        return self._task is not None

    def start(self) -> None:
        """Idempotent."""
        if self._task is None and self._loop is not None:
            self._task = asyncio.create_task(self._loop.play(self._playout, self._name), name=self._name)

    def stop(self) -> None:
        """Idempotent."""
        if self._task is None:
            return
        self._task.cancel()
        self._stopped.add(self._task)
        self._task.add_done_callback(self._stopped.discard)
        self._task = None
        self._playout.flush()

    async def close(self) -> None:
        """Stop, and see the tasks out."""
        self.stop()
        if self._stopped:
            await asyncio.wait(set(self._stopped))


@asynccontextmanager
async def playing(playout: Playout, samples: Samples, name: str) -> AsyncIterator[Music]:
    """Music for the length of an `async with` block, or until `stop`."""
    music = Music(playout, samples, name)
    music.start()
    try:
        yield music
    finally:
        await music.close()
