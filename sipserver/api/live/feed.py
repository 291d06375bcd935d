"""All events of one tenant, from all processes, each once and in order: what is heard live, and where something is
missing, what the database has.

Events of a run (a life of a process) come in the order in which they happened. A live event names the one before it: if
that has not come, the event waits until the database has told what lies between. Owns this, and how far it has got.
Refuses to know clients (`listener`).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

from sipserver.api.live.cursor import Cursor, named
from sipserver.api.live.listener import Listener, Together, Told
from sipserver.api.live.missing import FeedSource, missing
from sipserver.bus.contract import Live, Subscription
from sipserver.journal import Entry, micros
from sipserver.log import logger
from sipserver.store.database import UNAVAILABLE, brief
from sipserver.store.feed_rows import FeedRow

LOOK_S = 1.0
"""How often the database is asked for what nobody told live: the end of a call whose process died."""
LATE_US = 15_000_000
"""Usually it has everything that is older than this."""
FAR_S = 30.0
FAR_US = 600_000_000
"""From time to time it is asked for what came even later. Beyond this nothing comes: the base of cursors."""
AGAIN_S = 0.1
HELD = 10_000
"""Live events that wait for one that is missing; beyond it all come from the database."""
PAGE = 2_000
TOGETHER = 100
"""Events that go out in one piece, at most."""
AT_A_TIME = 256
"""Clients that are told in one turn of the loop."""


def now_us() -> int:
    return time.time_ns() // 1000


class Feed:
    """Loop thread. `open`, `add` and `remove`, `close`."""

    def __init__(self, tenant: str, source: FeedSource, *, clock: Callable[[], int] = now_us) -> None:
        self._tenant, self._source, self._clock = tenant, source, clock
        self._base_us = 0
        self._marks: dict[str, int] = {}
        self._held: dict[str, deque[tuple[FeedRow, int]]] = {}
        self._held_count = 0
        self._opened = False
        self._listeners: list[Listener] = []
        self._fresh: list[Told] = []
        self._together, self._untold = Together(()), list[Listener]()
        self._telling: asyncio.Handle | None = None
        self._wake = asyncio.Event()
        self._hearing: Subscription | None = None
        self._filling: asyncio.Task[None] | None = None
        self._log = logger("api", tenant=tenant)

    @property
    def listeners(self) -> Sequence[Listener]:
        return self._listeners

    def reached(self) -> Cursor:
        """What all have by now who are live. Tells them first what waits to be told."""
        self._tell_all()
        return Cursor(self._base_us, dict(self._marks))

    def add(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def remove(self, listener: Listener) -> None:
        self._listeners.remove(listener)

    async def open(self, live: Live) -> None:
        """From now on everything that happens is told. Raises what the database raises."""
        self._base_us = self._clock() - FAR_US
        self._hearing = await live.hear(self._tenant, self._heard)
        try:
            for run, at_us in (await self._source.newest(self._tenant, self._base_us)).items():
                self._marks[named(run)] = at_us
        except BaseException:
            await self._hearing.close()
            raise
        self._opened = True
        for run in list(self._held):
            self._release(run)
        self._filling = asyncio.create_task(self._fill(), name=f"events of {self._tenant}")

    async def close(self) -> None:
        if self._hearing is not None:
            await self._hearing.close()
        self._tell_all()
        if self._telling is not None:
            self._telling.cancel()
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.gather(self._filling, return_exceptions=True)

    # --- live ---------------------------------------------------------------------------------------------------------

    def _heard(self, entry: Entry, before_us: int) -> None:
        told = entry.fields
        row = FeedRow(
            run=entry.run,
            call_id=entry.call_id,
            seq=int(told["seq"]),
            at_ms=int(told["at_ms"]),
            kind=str(told["kind"]),
            fields=dict(told["fields"]),
            at_us=micros(entry.at),
        )
        run = named(row.run)
        if self._opened and run not in self._held:
            if row.at_us <= self._mark(run):
                return
            if before_us <= self._mark(run):
                self._deliver(run, row)
                return
        self._hold(run, row, before_us)

    def _hold(self, run: str, row: FeedRow, before_us: int) -> None:
        if self._held_count >= HELD:
            self._held.clear()
            self._held_count = 0
        self._held.setdefault(run, deque()).append((row, before_us))
        self._held_count += 1
        self._wake.set()

    def _release(self, run: str) -> None:
        """What was held and is not missing anything any more."""
        held = self._held.get(run)
        while held:
            row, before_us = held[0]
            if before_us > self._mark(run):
                return
            held.popleft()
            self._held_count -= 1
            if row.at_us > self._mark(run):
                self._deliver(run, row)
        self._held.pop(run, None)

    def _mark(self, run: str) -> int:
        return max(self._marks.get(run, 0), self._base_us)

    def _deliver(self, run: str, row: FeedRow) -> None:
        self._marks[run] = row.at_us
        self._fresh.append(Told(self._tenant, row, Cursor(self._base_us, dict(self._marks))))
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        """AT_A_TIME clients, and the next ones in the loop's next turn: to write to a thousand sockets takes the kernel
        tens of milliseconds, for which no call is to wait. What happens meanwhile is told together after that.
        """
        self._telling = None
        self._tell_some(AT_A_TIME)
        if self._untold or self._fresh:
            self._telling = asyncio.get_running_loop().call_soon(self._tell)

    def _tell_some(self, most: int) -> None:
        if not self._untold and self._fresh:
            self._together = Together(self._fresh[:TOGETHER])
            del self._fresh[:TOGETHER]
            self._untold = self._listeners[::-1]
        for _ in range(min(most, len(self._untold))):
            self._untold.pop().take(self._together)

    def _tell_all(self) -> None:
        while self._untold or self._fresh:
            self._tell_some(len(self._untold) or AT_A_TIME)

    # --- what the database has ----------------------------------------------------------------------------------------

    async def _fill(self) -> None:
        far_at = time.monotonic() + FAR_S
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            far = time.monotonic() >= far_at
            try:
                await self._look(far)
            except UNAVAILABLE as problem:
                self._log.warning("events cannot be read; live ones go on", error=brief(problem))
                await asyncio.sleep(LOOK_S)
            except Exception:
                self._log.exception("events broke")
                await asyncio.sleep(LOOK_S)
            else:
                if far:
                    far_at = time.monotonic() + FAR_S
                    self._remind()
            if self._held:
                await asyncio.sleep(AGAIN_S)
                self._wake.set()

    async def _look(self, far: bool) -> None:
        """Compare with the database; fetch what is missing. far: also what is very late, and move the base then."""
        began_us = self._clock()
        low_us = self._base_us if far else max(self._base_us, began_us - LATE_US)
        low_us = min([low_us, *(self._mark(run) for run in self._held)])
        async for row in missing(self._source, self._tenant, low_us, self._mark, PAGE):
            self._deliver(named(row.run), row)
        for run in list(self._held):
            self._release(run)
        if far:
            self._base_us = max(self._base_us, began_us - FAR_US)
            self._marks = {run: mark for run, mark in self._marks.items() if mark > self._base_us}

    def _remind(self) -> None:
        cursor = self.reached()
        for listener in self._listeners:
            listener.remind(cursor)
