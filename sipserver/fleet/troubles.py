"""What can be wrong with a machine beside its processes: the bus, the records, the disk, no cells at all.

Owns the thresholds. Refuses to act: it raises and clears alarms.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

from sipserver.bus.contract import Bus
from sipserver.fleet.alarms import Alarms
from sipserver.fleet.crew import CELL, Crew

RECORDS_BEHIND = 5_000
"""Entries that wait for the bus or for the database: a minute of a busy machine."""
DISK_FREE = 0.05
DISK_FREE_BYTES = 200 * 1024 * 1024
LOOK_AT_DISK_S = 10.0


class Troubles:
    """`look` every second; `watch_disk` in a task of its own. Loop thread."""

    def __init__(self, crew: Crew, bus: Bus, alarms: Alarms, folders: Sequence[Path]) -> None:
        self._crew, self._bus, self._alarms, self._folders = crew, bus, alarms, folders

    def look(self, *, serving: bool) -> None:
        """serving: cells should be there."""
        self._alarms.set("bus_away", not self._bus.up, "limits by the last known share, entries go to the spool")
        behind = self.records_behind()
        self._alarms.set("records_behind", behind > RECORDS_BEHIND, f"{behind} entries wait")
        self._alarms.set("no_cells", serving and not self._crew.ready(CELL), "nobody takes calls")

    def records_behind(self) -> int:
        """Entries of this machine that have not reached the database, as far as the last beats tell."""
        waiting = sum(int(child.beat.more.get("journal", 0)) for child in self._crew.children(CELL))
        unwritten = sum(int(child.beat.more.get("behind", 0)) for child in self._crew.children("writer"))
        return self._bus.journal.depth + waiting + unwritten

    async def watch_disk(self) -> None:
        """For ever. Folders on the same disk are looked at once each: it costs nothing."""
        while True:
            full = [folder for folder in self._folders if await asyncio.to_thread(_nearly_full, folder)]
            self._alarms.set("disk_nearly_full", bool(full), ", ".join(map(str, full)))
            await asyncio.sleep(LOOK_AT_DISK_S)


def _nearly_full(folder: Path) -> bool:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return False
    return usage.free < min(DISK_FREE * usage.total, DISK_FREE_BYTES)
