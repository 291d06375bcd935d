"""What has been told and is not yet on the bus: in memory, and in a spool on disk while Redis is away.

Owns the order (the spool is always older than the memory) and the bounds. Refuses to know Redis and when to send. One
task takes from it; `put` may be called at any time. Loop thread; the disk is used in a thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from sipserver.log import logger
from sipserver.spool import Batch, Spool

FULL_DISK_FACTOR = 10
"""How many times its usual bound the memory may hold when the disk does not take what is beyond it."""


class Outbox:
    """queue: lines in memory beyond which `crowded` says that they should go to the spool."""

    def __init__(self, folder: Path, owner: str, queue: int) -> None:
        self._memory: deque[bytes] = deque()
        self._spool = Spool(folder, owner)
        self._queue = queue
        self._read: Batch | None = None
        self._disk_full = False
        self._log = logger("bus")
        self.dropped = 0

    @property
    def depth(self) -> int:
        return len(self._memory) + self._spool.depth

    @property
    def in_memory(self) -> int:
        return len(self._memory)

    @property
    def crowded(self) -> bool:
        return len(self._memory) > self._queue

    def put(self, line: bytes, *, dear: bool) -> None:
        """Never blocks. While the disk is full too, lines are dropped and counted beyond ten times the queue; dear ones
        beyond twenty times."""
        most = self._queue * FULL_DISK_FACTOR * (2 if dear else 1)
        if len(self._memory) >= most:
            self.dropped += 1
            if self.dropped % 1_000 == 1:
                self._log.error("no Redis and no room on disk: entries are lost", dropped=self.dropped)
            return
        self._memory.append(line)

    async def oldest(self, most: int) -> Sequence[bytes]:
        """The next lines to send; the same again until `sent`. Raises OSError when the spool cannot be read."""
        if self._spool.depth:
            self._read = await asyncio.to_thread(self._spool.read, most)
            return self._read.lines
        self._read = None
        return list(islice(self._memory, most))

    async def sent(self, count: int) -> None:
        """The last `oldest` is on the bus; count: its length."""
        if self._read is not None:
            await asyncio.to_thread(self._spool.done, self._read)
            self._read = None
            return
        for _ in range(count):
            self._memory.popleft()

    async def to_disk(self) -> bool:
        """Move the memory to the spool. False when the disk does not take it: then it stays in memory."""
        lines = list(self._memory)
        try:
            await asyncio.to_thread(self._spool.append, lines)
        except OSError as problem:
            if not self._disk_full:
                self._log.error("cannot spool", folder=str(self._spool.folder), error=str(problem))
            self._disk_full = True
            return False
        self._disk_full = False
        for _ in lines:
            self._memory.popleft()
        return True

    async def close(self) -> None:
        await asyncio.to_thread(self._spool.close)
