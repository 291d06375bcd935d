"""Which cell registers the trunks and asks whether they live: one of the whole fleet, by the lease `registrar`.

Owns the lease, and the moment when this cell begins and ends to register. Refuses to register: the desk of the cell's
trunks does. One cell has all registrations, since they cost next to nothing and change hands together. All cells
register the same address, the edge's, so that a successor refreshes what the dead one had registered.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from sipserver.bus.contract import Bus, Json, Lease
from sipserver.errors import BusDown, NotFound, RemoteError
from sipserver.log import logger

LEASE = "registrar"
LOOK_S = 1.0
"""How often the cells look whether the lease is free, and its holder whether it still has it."""
REGISTER_AGAIN = "register again"
"""What one who lost the lease asks of its successor: its goodbye to the registrars ended what they had in common."""

TRUNKS = "trunks"
"""Asks a cell for the state of the trunks as it knows it: {} -> {trunks: [...]}."""


class Desk(Protocol):
    """Registers all trunks that want it, and keeps them alive, from `start` until `stop`, which ends the registrations
    and waits a moment for it. Both may follow each other again.
    """

    def start(self) -> None: ...
    async def stop(self) -> None: ...


class Registrar:
    """Loop thread. `open`, then `close` when the cell drains, which lets another cell take over at once."""

    def __init__(self, bus: Bus, desk: Desk, *, look_s: float = LOOK_S) -> None:
        self._bus, self._desk, self._look_s = bus, desk, look_s
        self._log = logger("fleet", run=bus.run)
        self._lease: Lease | None = None
        self._task: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()

    @property
    def registers(self) -> bool:
        return self._lease is not None

    def open(self) -> None:
        """Begin to look for the lease."""
        self._task = asyncio.create_task(self._look_for_ever(), name="registrar")

    async def close(self) -> None:
        """End our registrations, then let go of the lease. Idempotent."""
        async with self._changing:  # a change that has begun is ended first
            task, self._task = self._task, None
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            lease, self._lease = self._lease, None
            if lease is not None:
                await self._desk.stop()
                await lease.close()
                self._log.info("this cell no longer registers the trunks")

    async def again(self) -> Json:
        """Register once more what a former holder has ended. Nothing where we do not register."""
        async with self._changing:
            if self._lease is not None:
                await self._desk.stop()
                self._desk.start()
        return {}

    async def _look_for_ever(self) -> None:
        while True:
            async with self._changing:
                if self._lease is None:
                    await self._try()
                else:
                    await self._look()
            await asyncio.sleep(self._look_s)

    async def _try(self) -> None:
        self._lease = await self._bus.leases.contend(LEASE, {"run": self._bus.run, "node": self._bus.node})
        if self._lease is not None:
            self._log.info("this cell registers the trunks")
            self._desk.start()

    async def _look(self) -> None:
        """While the bus is away nobody can take over, so we go on; cut off from it alone, we learn afterwards that
        somebody did.
        """
        try:
            held = await self._bus.leases.get(LEASE)
        except BusDown:
            return
        successor = held["run"] if held is not None else self._bus.run
        if successor == self._bus.run:
            return
        self._log.warning("another cell registers the trunks", successor=successor)
        self._lease = None
        await self._desk.stop()
        try:
            await self._bus.commands.ask(f"run:{successor}", REGISTER_AGAIN, {})
        except (BusDown, NotFound, RemoteError) as problem:
            self._log.warning("the other cell does not answer", successor=successor, error=str(problem))
