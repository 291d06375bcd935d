"""The call records of a server that is one process: what it tells about its calls, written in batches by one task.

Owns the queue between the calls and the database. Its rules: what is told waits in memory until it is written. A
database that is full, locked or gone costs no call anything: it is logged once, counted and tried again, and what waits
goes to the spool on disk, if there is one, and follows in order, also after a restart. Only when that cannot be written
either, events beyond `queue` are dropped and counted; the beginning and the end of a call never are.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import platform
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from sipserver import log
from sipserver.journal import Entry, Kind
from sipserver.store import crashed
from sipserver.store.backlog import Backlog
from sipserver.store.database import Database
from sipserver.store.journal_sink import JournalSink
from sipserver.store.keeper import Keeper, Tell
from sipserver.store.ledger import BATCH, SOON_EVERY_S, Ledger
from sipserver.store.open_call import fitting
from sipserver.store.reader import CallFile, CallRow, Calls, EventRow, Files, Reader
from sipserver.store.settings import StoreSettings

__all__ = ["CallFile", "CallRow", "EventRow", "Records"]

DISK_HANGS = 10
"""So many times the queue is held in memory while the disk is at work; then it counts as refusing."""
LONGEST_PAUSE_S = 5.0
CLOSE_S = 10.0


def _now() -> datetime:
    return datetime.now(UTC)


class Records(JournalSink):
    """Satisfies `calls.RecordSink`. Loop thread only.

    node: this server's name in a shared database; the host's name by default. spool: the folder for what the database
    does not take. now: the time of day, aware. clock: seconds that never jump, for what follows a call's beginning.
    tell: see `Keeper`. hear: is told each entry at once, in order, before it is written. soon: whether somebody waits
    for an entry, so that it is written at once. dropped: events that neither the database nor the disk took.
    """

    def __init__(
        self,
        settings: StoreSettings,
        *,
        node: str = "",
        spool: Path | None = None,
        now: Callable[[], datetime] = _now,
        clock: Callable[[], float] = time.monotonic,
        tell: Tell | None = None,
        hear: Callable[[Entry], None] | None = None,
        soon: Callable[[Entry], bool] = lambda _entry: False,
    ) -> None:
        """Raises SettingsError for an impossible URL."""
        self._name = fitting("node", node or platform.node() or "localhost")
        super().__init__(self._name, uuid.uuid4().hex, self._queue, now=lambda: now().timestamp(), clock=clock)
        self._settings = settings
        self._database = Database(settings)
        self._reader = Reader(self._database)
        self._backlog = Backlog(spool, self._name) if spool is not None else None
        self._keeper = Keeper(Ledger(self._database), self._backlog, tell=tell)
        self._hear, self._soon = hear, soon
        self._waiting: deque[Entry] = deque()
        self._log = log.logger("store")
        self._work, self._waited_for = asyncio.Event(), asyncio.Event()
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self.dropped = 0

    @property
    def depth(self) -> int:
        """Entries that wait to be written, in memory and on disk."""
        return len(self._waiting) + self._keeper.depth

    @property
    def failing(self) -> bool:
        """The last transaction failed."""
        return self._keeper.failing

    @property
    def failures(self) -> int:
        """Transactions that failed."""
        return self._keeper.failures

    @property
    def lost(self) -> int:
        """Rows that the database would never take."""
        return self._keeper.lost

    @property
    def spooled(self) -> int:
        """Entries that went to the disk."""
        return self._keeper.spooled

    # --- lifetime -----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open or make the database, migrate it, start the writer. Raises SettingsError."""
        await self._database.open()
        self._task = asyncio.create_task(self._write_for_ever(), name="call records")
        self._work.set()

    async def close(self) -> None:
        """Write what is left and stop; without a spool this is tried for 10 s. What is lost is named in the log.
        Idempotent.
        """
        if self._task is None:
            return
        task, self._task = self._task, None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                while not await self.flush() and self._waiting:  # noqa: ASYNC110  a database does not tell
                    await asyncio.sleep(self._settings.flush_ms / 1000)
        if self._waiting:
            names = list(dict.fromkeys(entry.call_id for entry in self._waiting))
            events = sum(entry.kind is Kind.EVENT for entry in self._waiting)
            self._log.error("call records are lost", calls=names, events=events)
        elif self._keeper.depth:
            self._log.warning("call records wait on disk for the next start", entries=self._keeper.depth)
        if self._backlog is not None:
            await self._backlog.close()
        await self._database.close()

    # --- writing ------------------------------------------------------------------------------------------------------

    def _queue(self, entry: Entry) -> None:
        if self._hear is not None:
            self._hear(entry)
        bound = self._settings.queue * (DISK_HANGS if self._keeper.durable else 1)
        if entry.kind is Kind.EVENT and len(self._waiting) >= bound:
            self.dropped += 1
            return
        self._waiting.append(entry)
        self._work.set()
        if self._soon(entry):
            self._waited_for.set()

    async def flush(self) -> bool:
        """Write everything told so far. False if the database cannot write now: all is kept then. Safe to cancel."""
        async with self._writing:
            while self._waiting or self._keeper.depth:
                if self._keeper.depth:
                    caught_up = await self._keeper.catch_up()
                    if not caught_up or len(self._waiting) > self._settings.queue:
                        await self._set_aside()
                    if not caught_up:
                        return False
                elif not await self._move(self._keeper.keep):
                    return False
            return True

    async def _set_aside(self) -> None:
        while self._waiting and await self._move(self._keeper.set_aside):
            pass

    async def _move(self, keep: Callable[[Sequence[Entry]], Awaitable[bool]]) -> bool:
        """The oldest entries in memory, to where they are kept."""
        oldest = list(itertools.islice(self._waiting, BATCH))
        if not await keep(oldest):
            return False
        for _ in oldest:
            self._waiting.popleft()
        return True

    async def _write_for_ever(self) -> None:
        usual_s = pause_s = self._settings.flush_ms / 1000
        retry_s = 0.0
        while True:
            await asyncio.sleep(min(usual_s, SOON_EVERY_S))
            await self._work.wait()
            if self.failing:
                await asyncio.sleep(usual_s)
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(usual_s):
                        await self._waited_for.wait()
            self._work.clear()
            self._waited_for.clear()
            if time.monotonic() < retry_s:
                async with self._writing:
                    await self._set_aside()
            elif await self.flush():
                pause_s = usual_s
            else:
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                retry_s = time.monotonic() + pause_s
            if self.depth:
                self._work.set()

    # --- calls of processes that died ---------------------------------------------------------------------------------

    async def sweep_crashed(self) -> Files:
        """Close the calls that an earlier process of this node left open, with reason `crash`; call once after `open`.

        They end when their last event was written. Returns them, so that their recordings can be repaired; a recording
        that was running is `failed` until somebody tells better. Those who must hear of each event hear of all that
        these calls have, with the end, before they are closed. Raises SQLAlchemyError, OSError.
        """
        await self.flush()
        earlier = crashed.of_earlier_runs(self._name, self._run)
        detail = "the server's process died during the call"
        await self._keeper.told(await crashed.last_words(self._database.engine, earlier, detail))
        return await crashed.close(self._database.engine, earlier, detail)

    # --- reading (what was written; `flush` first to see what was told a moment ago) ----------------------------------

    async def get(self, call_id: str) -> CallRow | None:
        return await self._reader.get(call_id)

    async def events(self, call_id: str, *, after_seq: int = -1, limit: int = 10_000) -> list[EventRow]:
        return await self._reader.events(call_id, after_seq=after_seq, limit=limit)

    async def list(
        self,
        limit: int = 50,
        before: datetime | None = None,
        *,
        tenant: str | None = None,
        sip_call_id: str | None = None,
        open_only: bool = False,
    ) -> Calls:
        return await self._reader.list(limit, before, tenant=tenant, sip_call_id=sip_call_id, open_only=open_only)

    async def delete_older_than(self, moment: datetime) -> Files:
        return await self._reader.delete_older_than(moment)
