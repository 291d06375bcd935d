"""Whose journal this machine's writer reads, and which processes are gone without anybody having said so.

Owns the leases `writer/<node>` and one reading task a journal. Refuses to know databases: it is told which processes
have open calls, and tells RUN_GONE for those that are silent.
A machine whose supervisor and whose writer have both let their leases run out is taken over by the first writer that
gets its lease, until the machine is back or its journal has been quiet for long.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field

from sipserver.bus.contract import Bus, Delivery, Lease
from sipserver.errors import BusDown, SipServerError
from sipserver.journal import Entry, Kind
from sipserver.log import logger

QUIET_S = 60.0
"""A dead machine's journal is left alone when nothing has come for so long."""
STRANGER_S = 30.0
"""The silence of a process of a machine that was never seen on this bus: it may share the database and not the bus.
Living calls write something every 5 s."""


class WriterReplaced(SipServerError):
    """Another process writes for this machine: this one was silent for too long. Start anew."""

    retry = True


@dataclass
class _Journal:
    """One that we read. heard: when something came last, monotonic."""

    lease: Lease
    task: asyncio.Task[None]
    heard: float = field(default_factory=time.monotonic)


class Takeover:
    """Loop thread. `hold_own` first, then `look` every second or so; `close` at the end.

    deliver: awaited with each delivery of the journals in question; back-pressure is its to make. gained: called when
    a journal becomes ours, for another process may have written its calls before.
    """

    def __init__(
        self,
        bus: Bus,
        lease_s: float,
        *,
        deliver: Callable[[Delivery], Awaitable[None]],
        gained: Callable[[], None],
    ) -> None:
        self._bus, self._lease_s, self._deliver, self._gained = bus, lease_s, deliver, gained
        self._value = {"node": bus.node, "run": bus.run}
        self._journals: dict[str, _Journal] = {}
        self._nodes: set[str] = set()
        self._seen: set[str] = {bus.node}
        self._open: Mapping[tuple[str, str], int] = {}
        self._absent: dict[str, float] = {}
        self._told: dict[str, float] = {}
        self._log = logger("writer", node=bus.node)

    @property
    def reading(self) -> list[str]:
        """The machines whose journals we read."""
        return list(self._journals)

    def know(self, nodes: Iterable[str]) -> None:
        """Machines that may have a journal; those that are on the bus are found without."""
        self._nodes.update(nodes)

    async def hold_own(self) -> bool:
        """Begin to read our own machine's journal; False while another process does."""
        return self._bus.node in self._journals or await self._begin(self._bus.node)

    async def close(self) -> None:
        """Stop reading and let go. Idempotent."""
        for node in list(self._journals):
            await self._end(node)

    def heard(self, entries: Iterable[Entry]) -> None:
        """Entries that came: their processes have not been silent."""
        now = time.monotonic()
        for entry in entries:
            self._told[entry.run] = now
            self._seen.add(entry.node)

    async def look(self, open_runs: Mapping[tuple[str, str], int]) -> list[Entry]:
        """Take over from machines that are gone. open_runs: (node, run) of processes with open calls, and how many
        events they have; returns a RUN_GONE for each of ours that has long been silent. Raises WriterReplaced.
        """
        self._raise_broken()
        try:
            alive = {key.partition("/")[2] for key in await self._bus.leases.find("node/")}
            await self._leave(alive)
            self._seen |= alive
            self._nodes |= alive | {node for node, _ in open_runs}
            for node in self._nodes - alive - {self._bus.node} - self._journals.keys():
                await self._begin(node)
            return await self._silent(open_runs)
        except BusDown:
            self._absent.clear()  # who is silent now may only be cut off from the bus
            return []

    async def _silent(self, open_runs: Mapping[tuple[str, str], int]) -> list[Entry]:
        ours = sorted((node, run) for node, run in open_runs if node in self._journals)
        alive = await self._bus.leases.find("run/") if ours else {}
        gone = [(node, run) for node, run in ours if f"run/{run}" not in alive]
        now = time.monotonic()
        self._told.update((key[1], now) for key, count in open_runs.items() if self._open.get(key) != count)
        self._open = open_runs
        self._absent = {run: self._absent.get(run, now) for _, run in gone}
        found = []
        for node, run in gone:
            # A lease that has run out was silent for lease_s already.
            patience_s = self._lease_s / 4 if node in self._seen else STRANGER_S
            if now - max(self._absent[run], self._told.get(run, 0)) >= patience_s:
                del self._absent[run]
                self._log.warning("a process is silent, its calls are closed", process=run, of=node)
                detail = {"detail": "the process fell silent during the call"}
                found.append(Entry(Kind.RUN_GONE, node, run, "", time.time(), detail))
        self._told = {run: at for run, at in self._told.items() if now - at < STRANGER_S}
        return found

    async def _leave(self, alive: Set[str]) -> None:
        """Journals of others: their machine is back, another has it now, or nothing comes any more.

        Raises WriterReplaced when it is our own that another has.
        """
        for node, journal in list(self._journals.items()):
            holder = await self._bus.leases.get(f"writer/{node}")
            replaced = holder is not None and holder.get("run") != self._bus.run
            if node == self._bus.node:
                if replaced:
                    raise WriterReplaced(f"another process writes the records of {node} now")
            elif replaced or node in alive or time.monotonic() - journal.heard > QUIET_S:
                self._log.info("leave a journal", of=node, back=node in alive)
                await self._end(node)
                self._nodes.discard(node)

    async def _begin(self, node: str) -> bool:
        lease = await self._bus.leases.contend(f"writer/{node}", self._value)
        if lease is None:
            return False
        if node != self._bus.node:
            self._log.warning("a machine is gone, its journal is taken over", of=node)
        self._gained()
        task = asyncio.create_task(self._read(node), name=f"journal of {node}")
        self._journals[node] = _Journal(lease, task)
        return True

    async def _end(self, node: str) -> None:
        journal = self._journals.pop(node)
        journal.task.cancel()
        await asyncio.gather(journal.task, return_exceptions=True)
        await journal.lease.close()

    async def _read(self, node: str) -> None:
        async with contextlib.aclosing(self._bus.journal.read(node)) as deliveries:
            async for delivery in deliveries:
                await self._deliver(delivery)
                self._journals[node].heard = time.monotonic()

    def _raise_broken(self) -> None:
        for journal in self._journals.values():
            if journal.task.done():
                journal.task.result()
