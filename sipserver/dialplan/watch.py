"""Hot reload: notices changes in the dialplan folder and hands out the next `Book`.

A bad file never replaces a good one: its tenant keeps its plan, and the mistake is reported. New calls get the
new book, running calls keep their plan. Looking once a second at the time and size of a few files needs no library and
works on every file system.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sipserver.dialplan import book, load
from sipserver.dialplan.book import Book
from sipserver.dialplan.plan import Plan
from sipserver.errors import ConfigError, DialplanError

Stamp = tuple[int, int, int]
Stamps = dict[Path, Stamp]

_SETTLE_S = 0.2
_MOST_WAITS = 25


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A folder as it was read at one moment. Read before a fork, it is shared by all children."""

    book: Book
    stamps: Stamps


def snapshot(folder: Path, *, strict: bool = True, most_agents: load.MostAgents = load.NO_LIMITS) -> Snapshot:
    """Read the folder. Blocks on the disk.

    Raises DialplanError with the first mistake: a server does not start with half of its dialplans, or with none. Not
    strict: without the wrong ones, for a server that runs and must not end because of them.
    """
    stamps = _stamps(folder)
    reading = book.read(folder, most_agents)
    if reading.errors and strict:
        raise reading.errors[0]
    if not reading.book.plans:
        raise DialplanError("no dialplan (*.yaml) is in this folder", file=folder)
    return Snapshot(reading.book, stamps)


class Watcher:
    """Keeps the current book of a folder. All methods: loop thread; the disk is read in a worker thread.

    on_change: called with every new book. on_problem: called with every mistake found in a changed file.
    Both are called on the loop and must not block. snapshot: begin with what was read already, and look at the folder
    only when `refresh` or `reload` says so: somebody else watches it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        on_change: Callable[[Book], None] = lambda _book: None,
        on_problem: Callable[[ConfigError], None] = lambda _problem: None,
        interval_s: float = 1.0,
        snapshot: Snapshot | None = None,
        most_agents: load.MostAgents = load.NO_LIMITS,
    ) -> None:
        self.folder = folder
        self.book = Book()
        self._given, self._most_agents = snapshot, most_agents
        self._on_change, self._on_problem, self._interval_s = on_change, on_problem, interval_s
        self._stamps: Stamps = {}
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> Book:
        """Read the folder and begin to watch it, or take the snapshot that was given. Raises what `snapshot` raises."""
        async with self._lock:
            taken = self._given
            if taken is None:
                taken = await asyncio.to_thread(snapshot, self.folder, most_agents=self._most_agents)
            self.book, self._stamps = taken.book, taken.stamps
        if self._given is not None:
            return self.book
        self._task = asyncio.create_task(self._watch(), name="dialplan-watch")
        return self.book

    async def stop(self) -> None:
        """End watching. Idempotent; the book stays readable."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def reload(self) -> Book:
        """Read every file again now (SIGHUP), as a changed file may name a sound that has come since. Never raises
        for what the files say. Safe to cancel: the book is then the old or the new one."""
        async with self._lock:
            await self._renew(everything=True)
        return self.book

    async def refresh(self) -> Book:
        """Read the files that have changed now. Otherwise like `reload`."""
        async with self._lock:
            await self._renew(everything=False)
        return self.book

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            async with self._lock:
                await self._renew(everything=False)

    async def _renew(self, *, everything: bool) -> None:
        try:
            stamps = await asyncio.to_thread(_stamps, self.folder)
            if not everything:
                if stamps == self._stamps:
                    return
                stamps = await self._settled(stamps)
        except ConfigError as unreadable:
            if everything or self._stamps:
                self._on_problem(unreadable)
            self._stamps = {}
            return
        changed = [file for file, stamp in stamps.items() if everything or self._stamps.get(file) != stamp]
        self._stamps = stamps
        reports = await asyncio.to_thread(lambda: [load.check(file, self._most_agents) for file in changed])
        for report in reports:
            for problem in report.errors:
                self._on_problem(problem)
        fresh = {report.file: report.plan for report in reports if report.plan is not None}
        renewed, clashes = merge(self.book, list(stamps), fresh)
        for clash in clashes:
            self._on_problem(clash)
        if renewed != self.book:
            self.book = renewed
            self._on_change(renewed)

    async def _settled(self, stamps: Stamps) -> Stamps:
        """Wait until nobody writes any more: half a file may be a valid dialplan."""
        for _ in range(_MOST_WAITS):
            await asyncio.sleep(min(_SETTLE_S, self._interval_s))
            before, stamps = stamps, await asyncio.to_thread(_stamps, self.folder)
            if stamps == before:
                break
        return stamps


def merge(old: Book, present: list[Path], fresh: dict[Path, Plan]) -> tuple[Book, list[DialplanError]]:
    """The next book: fresh plans, old ones where a present file has no fresh one, none for files that are gone.

    A fresh plan whose tenant belongs to another file is refused, and its file keeps the plan that it had. Pure.
    """
    had = {plan.file: plan for plan in old.plans}
    holders = {(plan.tenant, plan.file) for plan in old.plans}
    now = {file: plan for file in sorted(present) if (plan := fresh.get(file, had.get(file))) is not None}
    kept, clashes = book.unique(now.values(), holders)
    refused = {file for file, plan in now.items() if plan not in kept}
    if refused:
        again = {file: had.get(file) if file in refused else plan for file, plan in now.items()}
        kept, _ = book.unique([plan for plan in again.values() if plan is not None], holders)
    return Book(tuple(kept)), clashes


def _stamps(folder: Path) -> Stamps:
    found: Stamps = {}
    for file in book.files(folder):
        with suppress(OSError):  # it went away between the listing and the look
            status = file.stat()
            found[file] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return found
