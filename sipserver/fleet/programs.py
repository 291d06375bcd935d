"""Servers of others that the supervisor runs beside its own processes: Kamailio, rtpengine.

Owns that they run: started or adopted, started again when they die or hang, stopped at the end. Refuses to know
what they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from sipserver.errors import SipServerError
from sipserver.fleet.alarms import Alarms
from sipserver.fleet.backoff import Backoff
from sipserver.fleet.settings import FleetSettings
from sipserver.log import logger

LOOK_S = 1.0
MISSES = 3
"""So many questions in a row without an answer, and it hangs. A busy machine misses one."""


class Program(Protocol):
    """What the supervisor needs from such a server. Loop thread."""

    async def start(self) -> None:
        """Returns when it answers; one that runs already, e.g. of an earlier supervisor, is adopted. Raises
        SettingsError for what it does not accept, CarrierError when it does not come up."""

    async def alive(self) -> bool:
        """It answers; False after a second without. Safe to cancel."""

    async def exited(self) -> None:
        """Returns when it is gone. Safe to cancel."""

    async def kill(self) -> None:
        """It hangs: end it without asking, if its life is ours. Afterwards `start` may be called again."""

    async def stop(self) -> None:
        """Idempotent."""


class Keeper:
    """`start`, `stop`. on_start: called whenever it has (again) come up."""

    def __init__(
        self,
        name: str,
        program: Program,
        settings: FleetSettings,
        alarms: Alarms,
        on_start: Callable[[], None] = lambda: None,
    ) -> None:
        self.name, self._program, self._alarms, self._on_start = name, program, alarms, on_start
        self._backoff = Backoff(*settings.backoff_s, stable_s=settings.alarm_s)
        self._task: asyncio.Task[None] | None = None
        self._log = logger("fleet")
        self.running = False
        self.restarts = 0

    async def start(self) -> None:
        """Raises what the program raises: at the start a person looks on."""
        await self._program.start()
        self._up()
        self._task = asyncio.create_task(self._keep(), name=self.name)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self.running = False
        await self._program.stop()

    def _up(self) -> None:
        self.running = True
        self._alarms.set(f"{self.name}_down", False)
        self._on_start()

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        while True:
            if self.running:
                hangs = await self._lost()
                self.running = False
                self.restarts += 1
                self._alarms.set(f"{self.name}_down", True, "it does not answer" if hangs else "it ended")
                if hangs:
                    await self._program.kill()
            await asyncio.sleep(self._backoff.after(loop.time() - began_s))
            began_s = loop.time()
            try:
                await self._program.start()
            except SipServerError as problem:
                self._log.error("not started", program=self.name, error=str(problem))
            else:
                self._up()

    async def _lost(self) -> bool:
        """Until it is gone, False, or hangs, True. Its end is noticed at once, also while an answer is waited for."""
        gone = asyncio.create_task(self._program.exited(), name=f"{self.name} exited")
        deaf = asyncio.create_task(self._deaf(), name=f"{self.name} deaf")
        try:
            await asyncio.wait((gone, deaf), return_when=asyncio.FIRST_COMPLETED)
            return not gone.done()
        finally:
            gone.cancel()
            deaf.cancel()
            await asyncio.gather(gone, deaf, return_exceptions=True)

    async def _deaf(self) -> None:
        """Returns when it has missed too many questions."""
        misses = 0
        while misses < MISSES:
            await asyncio.sleep(LOOK_S)
            misses = 0 if await self._program.alive() else misses + 1
