"""What is done for a dead process: its spool is delivered, its calls are closed, its leases go.

Owns the order of these. Refuses to know why it died. Loop thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Coroutine
from typing import Any

from sipserver.bus.contract import Bus
from sipserver.fleet.ledger import Ledger, Life
from sipserver.fleet.process import ChildSpec
from sipserver.journal import Entry, Kind
from sipserver.log import logger


class Burials:
    """`note`, `bury` and `inherit` return at once; `finish` waits."""

    def __init__(self, bus: Bus, ledger: Ledger) -> None:
        self._bus, self._ledger = bus, ledger
        self._tasks: set[asyncio.Task[None]] = set()
        self._watched: dict[int, Life] = {}
        self._writing = asyncio.Lock()
        self._log = logger("fleet")

    @property
    def orphans(self) -> list[Life]:
        """Processes of an earlier supervisor that still live."""
        return list(self._watched.values())

    def bury(self, run: str, kind: str, name: str, detail: str) -> None:
        """detail: how it died, e.g. SIGSEGV."""
        self._start(self._bury(run, kind, name, detail), f"bury {name}")

    def note(self, spec: ChildSpec, pid: int) -> None:
        """It lives: the next supervisor will know, should there be one before it dies."""
        self._start(self._note(spec.run, spec.kind, spec.name, pid), f"note {spec.name}")

    def inherit(self, life: Life) -> None:
        """A process of an earlier supervisor: bury it when it dies, which may have happened already."""
        try:
            pidfd = os.pidfd_open(life.pid) if life.alive else -1
        except ProcessLookupError:
            pidfd = -1
        if pidfd >= 0 and not life.alive:  # it died, and its id went to another, between the two looks
            os.close(pidfd)
            pidfd = -1
        if pidfd < 0:
            self.bury(life.run, life.kind, life.name, "ended without a supervisor")
            return
        self._log.info("a process of an earlier supervisor goes on until its calls end", of=life.name, child=life.pid)
        self._watched[pidfd] = life
        asyncio.get_running_loop().add_reader(pidfd, self._inherited_ended, pidfd)

    async def finish(self, timeout_s: float) -> None:
        """Wait for the burials that go on; orphans are left to the next supervisor."""
        for pidfd in list(self._watched):
            self._unwatch(pidfd)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=timeout_s)
            for task in late:  # its line in the ledger stays, the next supervisor does it
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _inherited_ended(self, pidfd: int) -> None:
        life = self._unwatch(pidfd)
        self.bury(life.run, life.kind, life.name, "ended without a supervisor")

    def _unwatch(self, pidfd: int) -> Life:
        asyncio.get_running_loop().remove_reader(pidfd)
        with contextlib.suppress(ChildProcessError):  # its parent is dead, but it may have come to us
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
        os.close(pidfd)
        return self._watched.pop(pidfd)

    async def _note(self, run: str, kind: str, name: str, pid: int) -> None:
        async with self._writing:
            await asyncio.to_thread(self._ledger.write, run, kind, name, pid)

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            self._log.error("a burial failed; the next supervisor will try again", exc_info=problem)

    async def _bury(self, run: str, kind: str, name: str, detail: str) -> None:
        journal = self._bus.journal
        delivered = await journal.adopt(run)
        journal.tell(Entry(Kind.RUN_GONE, self._bus.node, run, "", time.time(), {"detail": detail}))
        await self._bus.forget_run(run)
        async with self._writing:
            await asyncio.to_thread(self._ledger.strike, run)
        self._log.debug("buried", of=name, kind=kind, run=run, delivered=delivered)
