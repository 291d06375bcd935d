"""The records writer of a machine: what its processes tell on the bus is written into the database.

Owns the way of an entry from the bus to the database, or to the disk while the database is away, so that the bus stays
small. Refuses to know rows (`store` makes them) and which journals are its to read (`takeover` finds out).
An entry is `done` on the bus when the database or the disk has it, and recordings of crashed calls are mended before.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sipserver.bus.contract import Bus, Delivery
from sipserver.calls import sound_files
from sipserver.calls.keyring import Keyring
from sipserver.errors import SipServerError
from sipserver.fleet.takeover import Takeover
from sipserver.journal import Entry, Kind
from sipserver.log import logger
from sipserver.store import crashed
from sipserver.store.backlog import Backlog
from sipserver.store.database import UNAVAILABLE, Database, DatabaseAway, brief
from sipserver.store.keeper import Keeper, Tell
from sipserver.store.ledger import BATCH, SOON_EVERY_S, Applied, Ledger
from sipserver.store.reader import CallFile, Reader
from sipserver.store.settings import StoreSettings

LOOK_S = 1.0
PAUSE_S = (0.25, 4.0)
"""Between attempts to reach a database that is away: the first and the longest pause."""
CATCH_UP_S = 0.5
"""So long at a time what waits on disk is written, before the bus is looked at again."""
HELD = 8
"""Deliveries in memory."""
CLOSE_S = 5.0
SETTLE_S = 0.4
"""At the end, nothing has come for so long."""
KNOWN = timedelta(minutes=15)
"""Machines that had calls in this time may have left something in their journals."""


def _ignore(_entry: Entry) -> None:
    pass


def _nobody_waits() -> None:
    pass


class Writer:
    """Loop thread. `run` until `close`.

    lease_s: how long a silent process counts as alive on the bus. spool: the folder for what the database does not
    take. on_entry: called once for every entry that comes, in order. on_open: called once, when the database is there
    and has its tables. tell: see `Keeper`. ring: what opens encrypted recordings.
    """

    def __init__(
        self,
        bus: Bus,
        settings: StoreSettings,
        *,
        lease_s: float,
        spool: Path,
        on_entry: Callable[[Entry], None] = _ignore,
        on_open: Callable[[], None] = _nobody_waits,
        tell: Tell | None = None,
        ring: Keyring | None = None,
    ) -> None:
        """Raises SettingsError for an impossible URL."""
        self._ring = ring or Keyring()
        self._bus, self._settings, self._spool = bus, settings, spool
        self._on_entry, self._on_open = on_entry, on_open
        self._log = logger("writer", node=bus.node)
        self._database = Database(settings)
        self._reader = Reader(self._database)
        self._ledger = Ledger(self._database)
        self._keeper = Keeper(self._ledger, None, on_applied=self._mend, tell=tell)
        self._backlog: Backlog | None = None
        self._takeover = Takeover(bus, lease_s, deliver=self._deliver, gained=self._ledger.forget)
        self._queue: asyncio.Queue[Sequence[Entry] | Delivery] = asyncio.Queue(HELD)
        self._held: list[Entry] = []
        self._rests_until_s = 0.0
        self._open = False
        self._closing = asyncio.Event()
        self._over = asyncio.Event()
        self.written = 0

    # --- for the metrics ----------------------------------------------------------------------------------------------

    @property
    def failures(self) -> int:
        """Attempts to write that failed."""
        return self._keeper.failures

    @property
    def lost(self) -> int:
        """Rows that the database would never take."""
        return self._keeper.lost

    @property
    def strays(self) -> int:
        """Entries about calls that nobody has opened."""
        return self._keeper.strays

    @property
    def spooled(self) -> int:
        """Entries that wait on disk for the database."""
        return self._keeper.depth

    @property
    def lag_entries(self) -> int:
        """Entries that came and that the database does not have."""
        return len(self._held) + self._keeper.depth

    @property
    def lag_s(self) -> float:
        """The age of the oldest of them."""
        moments = [at for at in (self._keeper.oldest_at, self._held[0].at if self._held else None) if at is not None]
        return max(0.0, time.time() - min(moments)) if moments else 0.0

    @property
    def ready(self) -> bool:
        """The database has been reached, and has its tables."""
        return self._open

    @property
    def reading(self) -> list[str]:
        """The machines whose journals are read here."""
        return self._takeover.reading

    # --- lifetime -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write until `close`; waits for a database or a bus that is away. Cancelling it loses nothing: what was not
        written comes again.

        Raises SettingsError for a database that cannot be used as it is, and WriterReplaced.
        """
        try:
            while not await self._takeover.hold_own():
                if await self._closes_within(LOOK_S):
                    return
            self._backlog = await asyncio.to_thread(Backlog, self._spool, self._bus.node)
            self._keeper.use(self._backlog)
            watching = asyncio.create_task(self._watch(), name="watch over journals")
            writing = asyncio.create_task(self._write(), name="write records")
            try:
                await asyncio.wait({watching, writing}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (watching, writing):
                    task.cancel()
                ended = await asyncio.gather(watching, writing, return_exceptions=True)
            for problem in ended:
                if isinstance(problem, Exception):
                    raise problem
        finally:
            await self._takeover.close()
            if self._backlog is not None:
                await self._backlog.close()
            await self._database.close()
            self._over.set()

    async def close(self) -> None:
        """Write what is on its way, for 5 s at most, and stop; returns when `run` has returned. Only while it runs."""
        self._closing.set()
        await self._over.wait()

    async def _closes_within(self, wait_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._closing.wait()
        return self._closing.is_set()

    # --- from the bus to the database ---------------------------------------------------------------------------------

    async def _deliver(self, delivery: Delivery) -> None:
        await self._queue.put(delivery)

    async def _write(self) -> None:
        pause_s, retry_at, closed_at = PAUSE_S[0], 0.0, float("inf")
        while time.monotonic() < closed_at:
            if self._closing.is_set() and closed_at == float("inf"):
                closed_at = time.monotonic() + CLOSE_S
            waits = self._keeper.depth > 0 or not self._open
            idle_s = SETTLE_S if self._closing.is_set() else max(0.0, retry_at - time.monotonic()) if waits else LOOK_S
            deliveries = await self._gather(idle_s)
            if deliveries:
                await self._keep(deliveries)
            elif self._closing.is_set():
                return
            if (self._keeper.depth or not self._open) and time.monotonic() >= retry_at:
                if await self._catch_up():
                    pause_s = PAUSE_S[0]
                else:
                    retry_at, pause_s = time.monotonic() + pause_s, min(2 * pause_s, PAUSE_S[1])

    async def _gather(self, idle_s: float) -> list[Sequence[Entry] | Delivery]:
        """What has come, after a short wait for more, so that one transaction holds it; empty when nothing came. The
        wait ends as soon as somebody waits for what has come.
        """
        found: list[Sequence[Entry] | Delivery] = []
        count = 0
        now_s = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(idle_s) as limit:
                while count < BATCH:
                    found.append(self._queue.get_nowait() if self._queue.qsize() else await self._queue.get())
                    count += len(_entries(found[-1]))
                    if len(found) == 1:
                        limit.reschedule(now_s() + self._settings.flush_ms / 1000)
                    if _soon(found[-1]):
                        limit.reschedule(min(limit.when() or 0.0, max(now_s(), self._rests_until_s)))
        except TimeoutError:
            pass
        return found

    async def _keep(self, deliveries: Sequence[Sequence[Entry] | Delivery]) -> None:
        self._held = [entry for delivery in deliveries for entry in _entries(delivery)]
        self._takeover.heard(entry for entry in self._held if entry.kind is not Kind.RUN_GONE)
        for entry in self._held:
            self._on_entry(entry)
        pause_s = PAUSE_S[0]
        while self._held and not await self._kept():
            await asyncio.sleep(pause_s)  # neither the database nor the disk takes them: the bus keeps them
            pause_s = min(2 * pause_s, PAUSE_S[1])
        self.written += len(self._held)
        self._held = []
        self._rests_until_s = asyncio.get_running_loop().time() + SOON_EVERY_S
        for delivery in deliveries:
            if not isinstance(delivery, Sequence):
                await delivery.done()

    async def _kept(self) -> bool:
        if not self._keeper.depth and await self._database_open():
            return await self._keeper.keep(self._held)
        return await self._keeper.set_aside(self._held)

    async def _catch_up(self) -> bool:
        if not await self._database_open():
            return False
        until = time.monotonic() + CATCH_UP_S
        while self._keeper.depth and time.monotonic() < until:
            if not await self._keeper.catch_up():
                return False
        return True

    async def _database_open(self) -> bool:
        """Open it, once. False while it is away. Raises SettingsError."""
        if not self._open:
            try:
                await self._database.open()
            except DatabaseAway as problem:
                self._log.warning("the database is away; what comes is kept on disk", error=problem.reason)
                return False
            self._open = True
            self._log.info("the database is open", waiting=self._keeper.depth)
            self._on_open()
        return True

    # --- calls whose process is gone ----------------------------------------------------------------------------------

    async def _watch(self) -> None:
        looked_back = False
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                open_runs = await self._reader.open_runs() if self._open else {}
                if self._open and not looked_back:
                    self._takeover.know(await self._reader.nodes(datetime.now(UTC) - KNOWN))
                    await self._mend_all(await self._unrepaired())
                    looked_back = True
            except UNAVAILABLE as problem:
                self._log.debug("cannot ask for open calls", error=brief(problem))
                open_runs = {}
            for gone in await self._takeover.look(open_runs):
                await self._queue.put([gone])

    async def _unrepaired(self) -> Sequence[CallFile]:
        return await crashed.unrepaired(self._database.engine, crashed.of_node(self._bus.node))

    async def _mend(self, applied: Applied) -> None:
        for call in applied.crashed:
            self._log.warning("closed a call that died with its process", call=call.call_id, tenant=call.tenant)
        mended = [entry for call in applied.broken if (entry := await self._repair(call)) is not None]
        if mended and not await self._keeper.keep(mended):
            self._log.warning("mended recordings are not noted", calls=[entry.call_id for entry in mended])

    async def _mend_all(self, calls: Sequence[CallFile]) -> None:
        """Those that an earlier writer, or another machine's, could not mend."""
        mended = [entry for call in calls if (entry := await self._repair(call)) is not None]
        if mended:
            await self._queue.put(mended)

    async def _repair(self, call: CallFile) -> Entry | None:
        """Make the recording readable, up to the last second that reached the disk; None where that cannot be."""
        path = Path(call.recording_path or "")
        try:
            if not await asyncio.to_thread(path.is_file):  # it lies on the disk of another machine
                return None
            await asyncio.to_thread(sound_files.repair, path, self._ring)
        except (OSError, ValueError, SipServerError) as problem:
            self._log.warning("recording not readable", call=call.call_id, path=str(path), error=str(problem))
            return None
        facts = {"path": str(path), "status": "complete"}
        return Entry(Kind.RECORDING, self._bus.node, self._bus.run, call.call_id, time.time(), facts)


def _entries(delivery: Sequence[Entry] | Delivery) -> Sequence[Entry]:
    return delivery if isinstance(delivery, Sequence) else delivery.entries


def _soon(delivery: Sequence[Entry] | Delivery) -> bool:
    return not isinstance(delivery, Sequence) and delivery.soon
