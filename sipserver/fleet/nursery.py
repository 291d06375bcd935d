"""There is always a warm parent: a dead one is replaced at once, a new one takes over only when it is warm."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from sipserver.errors import SipServerError
from sipserver.fleet.alarms import Alarms
from sipserver.fleet.backoff import Backoff
from sipserver.fleet.process import ChildSpec
from sipserver.fleet.settings import FleetSettings
from sipserver.fleet.warm_parent import WarmParent
from sipserver.log import logger


class Nursery:
    """`start`, `spawn`, `renew`, `close`. Loop thread."""

    def __init__(self, settings_file: Path, kinds: str, settings: FleetSettings, alarms: Alarms) -> None:
        self._settings_file, self._kinds = settings_file, kinds
        self._backoff = Backoff(*settings.backoff_s, stable_s=settings.alarm_s)
        self._alarms = alarms
        self._parent: WarmParent | None = None
        self._there = asyncio.Event()
        self._renewing = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._log = logger("fleet")
        self.restarts = 0

    @property
    def pid(self) -> int:
        return self._parent.pid if self._parent is not None else 0

    async def start(self) -> None:
        """Raises what the warm parent's settings, dialplans or imports are refused for."""
        await self.renew()
        self._keeper = asyncio.create_task(self._keep(), name="nursery")

    async def renew(self, *, strict: bool = True) -> None:
        """Children forked from now on have today's code, settings and dialplans. Raises like `start`, and the one that
        works stays. strict: see `process.Preload`."""
        async with self._renewing:
            fresh = WarmParent(self._settings_file, self._kinds)
            await fresh.start(strict=strict)
            old, self._parent = self._parent, fresh
            self._there.set()
            self._log.info("warm parent ready", child=fresh.pid, took_ms=fresh.warmed_ms)
            if old is not None:
                await old.close()

    async def spawn(self, spec: ChildSpec, control_socket: socket.socket) -> int:
        """The child's pid; waits for a warm parent. Raises InternalError when nothing was forked."""
        await self._there.wait()
        assert self._parent is not None
        return await self._parent.spawn(spec, control_socket)

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._parent is not None:
            await self._parent.close()

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            parent, began_s = self._parent, loop.time()
            assert parent is not None
            await parent.gone.wait()
            if parent is not self._parent:
                continue
            self._there.clear()
            self.restarts += 1
            pause_s = self._backoff.after(loop.time() - began_s)
            self._log.error("the warm parent died, its children live on", child=parent.pid, pause_s=pause_s)
            await parent.close()
            await asyncio.sleep(pause_s)
            try:
                await self.renew(strict=False)
            except SipServerError as problem:
                self._log.error("no warm parent", error=str(problem))
            self._alarms.set("warm_parent_down", not self._there.is_set(), "nothing can be started")
