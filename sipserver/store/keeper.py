"""Nothing that was told is lost: the database takes it, or the disk until the database is back.

Owns the order: while entries wait on disk, later ones go there too. Refuses to know where entries come from; a single
server and the writer of a fleet both use it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from sipserver import log
from sipserver.journal import Entry
from sipserver.store.backlog import Backlog
from sipserver.store.database import brief, is_trouble
from sipserver.store.ledger import BATCH, Applied, Ledger

OnApplied = Callable[[Applied], Awaitable[None]]
Tell = Callable[[Sequence[Entry]], Awaitable[None]]


async def _nothing(_applied: Applied) -> None:
    pass


async def _nobody(_entries: Sequence[Entry]) -> None:
    pass


class Keeper:
    """Loop thread; one task at a time.

    Counters: failures of the database; lost rows, which no database would take; strays: entries about unknown calls
    and unreadable lines; spooled entries. failing: the last attempt failed. on_applied is awaited before entries count
    as kept, for what must not be forgotten either (recordings to repair); what it raises is logged. tell is awaited
    with all entries before they count as kept, and with the ends of calls whose process died, for those who must hear
    of each; when the database fails it, the entries come again.
    """

    def __init__(
        self,
        ledger: Ledger,
        backlog: Backlog | None,
        *,
        on_applied: OnApplied = _nothing,
        tell: Tell | None = None,
    ) -> None:
        self._ledger, self._backlog, self._on_applied, self._tell = ledger, backlog, on_applied, tell or _nobody
        self._log = log.logger("store")
        self.failures = 0
        self.lost = 0
        self.strays = 0
        self.spooled = 0
        self.failing = False
        self.disk_refuses = False
        self._oldest_at: float | None = None

    def use(self, backlog: Backlog) -> None:
        """From here on, what the database does not take goes there; what an earlier process left there comes first."""
        self._backlog = backlog

    @property
    def durable(self) -> bool:
        """The disk takes what the database does not."""
        return self._backlog is not None and not self.disk_refuses

    @property
    def depth(self) -> int:
        """Entries on disk."""
        return self._backlog.depth if self._backlog is not None else 0

    @property
    def oldest_at(self) -> float | None:
        """When the oldest entry on disk happened, seconds since the epoch, or a little earlier; None: nothing waits."""
        if not self.depth:
            self._oldest_at = None
        return self._oldest_at

    async def keep(self, entries: Sequence[Entry]) -> bool:
        """False when neither the database nor the disk takes them: bring them again before others. Safe to cancel;
        bring them again then, too.
        """
        if not self.depth and await self._apply(entries):
            return True
        return await self.set_aside(entries)

    async def set_aside(self, entries: Sequence[Entry]) -> bool:
        """To the disk without trying the database. False when the disk does not take them. Safe to cancel as `keep`."""
        if self._backlog is None:
            return False
        try:
            await self._backlog.append(entries)
        except OSError as problem:
            if not self.disk_refuses:
                self.disk_refuses = True
                self._log.error("call records cannot be written to the disk either", error=brief(problem))
            return False
        self.disk_refuses = False
        self.spooled += len(entries)
        if self._oldest_at is None:
            self._oldest_at = entries[0].at
        return True

    async def catch_up(self) -> bool:
        """Give the database the oldest BATCH of what waits on disk. False when it does not take them now."""
        if self._backlog is None or not self._backlog.depth:
            return True
        try:
            oldest = await self._backlog.oldest(BATCH)
        except OSError as problem:
            self._failed(problem)
            return False
        if oldest.entries and not await self._apply(oldest.entries):
            return False
        self.strays += oldest.unreadable
        await self._backlog.done(oldest)
        self._oldest_at = oldest.entries[-1].at if oldest.entries else self._oldest_at
        return True

    async def _apply(self, entries: Sequence[Entry]) -> bool:
        try:
            applied = await self._ledger.apply(entries)
            await self.told([*entries, *applied.ends])
        except Exception as problem:  # whatever a driver raises, the entries are kept
            self._failed(problem)
            return False
        self._succeeded(applied)
        if applied.crashed or applied.broken:
            try:
                await self._on_applied(applied)
            except Exception as problem:  # a recording is not worth the records
                self._log.error("after calls had crashed", exc_info=problem)
        return True

    async def told(self, entries: Sequence[Entry]) -> None:
        """Tell those who must hear of each. Raises what the database raises."""
        try:
            await self._tell(entries)
        except Exception as problem:
            if is_trouble(problem):
                raise
            self._log.error("entries were kept and could not be told", exc_info=problem)

    def _failed(self, problem: Exception) -> None:
        self.failures += 1
        if not self.failing:
            self.failing = True
            self._log.error("call records cannot be written; calls go on, entries are kept", error=brief(problem))

    def _succeeded(self, applied: Applied) -> None:
        self.strays += applied.strays
        if applied.lost:
            self.lost += applied.lost
            self._log.error("the database refuses some rows of call records", rows=applied.lost)
        if self.failing:
            self.failing = False
            self._log.warning("call records are written again", failures=self.failures, waiting=self.depth)
