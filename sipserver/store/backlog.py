"""Entries that wait on disk for the database, in order. The spool with entries instead of lines, off the loop."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sipserver import spool
from sipserver.journal import Entry


@dataclass(frozen=True, slots=True)
class Oldest:
    """Some of the oldest entries, and what `Backlog.done` needs to forget them. unreadable: lines that were none."""

    entries: tuple[Entry, ...]
    unreadable: int
    batch: spool.Batch


class Backlog:
    """Loop thread; the disk is waited for in threads. One process may have it open."""

    def __init__(self, folder: Path, owner: str) -> None:
        """owner: a machine's name. Finds what an earlier process left. Blocks for the disk; raises OSError."""
        self._spool = spool.Spool(folder, re.sub(r"[^A-Za-z0-9.-]", "_", owner))

    @property
    def depth(self) -> int:
        return self._spool.depth

    async def append(self, entries: Sequence[Entry]) -> None:
        """Raises OSError when the disk does not take them: none of them is kept then. Cancelled: they may be kept."""
        await asyncio.to_thread(lambda: self._spool.append([entry.encode() for entry in entries]))

    async def oldest(self, most: int) -> Oldest:
        """The same again until `done`. Raises OSError."""
        read = await asyncio.to_thread(self._spool.read, most)
        entries, unreadable = [], 0
        for line in read.lines:
            try:
                entries.append(Entry.decode(line))
            except ValueError:
                unreadable += 1
        return Oldest(tuple(entries), unreadable, read)

    async def done(self, oldest: Oldest) -> None:
        await asyncio.to_thread(self._spool.done, oldest.batch)

    async def close(self) -> None:
        await asyncio.to_thread(self._spool.close)
