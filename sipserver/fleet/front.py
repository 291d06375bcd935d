"""What stands in front of the cells knows them: this machine's edge by its list, other machines' edges by our lease.

Owns the edge's list, the lease `node/<node>` and the look at other machines. Refuses to know how the edge and the bus
do their work, and when cells come and go: it is told that something changed, and asks. Loop thread.

While the bus is away the last known list of other machines stays; our own cells are always true.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from sipserver.bus.contract import Bus, Lease
from sipserver.edge.cells import CellAddress
from sipserver.errors import SipServerError
from sipserver.fleet.alarms import Alarms
from sipserver.fleet.programs import Program
from sipserver.fleet.roster import Node, for_edge
from sipserver.log import logger

LOOK_S = 1.0
"""How often the leases of other machines are read, and how soon a list that the edge did not take is sent again."""
RIVAL_S = 15.0
"""How long after its last sign another machine of our name is an alarm."""
FLUSH_S = 5.0
"""The edge takes one list a second."""


class Edge(Program, Protocol):
    """The SIP proxy in front."""

    async def set_cells(self, cells: Sequence[CellAddress]) -> None:
        """New calls go to these from now on; running ones stay where they are. Raises CarrierError when it cannot be
        told now."""

    async def drain(self, on: bool) -> None:
        """Answer new calls 503 with Retry-After, or take them again. Raises CarrierError."""

    async def stats(self) -> Mapping[str, Any]:
        """What `sipserver fleet status` shows of it. Raises CarrierError."""


class Front:
    """`start`, `changed`, `flush`, `stop`. own: asked for our machine as it is now."""

    def __init__(self, bus: Bus, edge: Edge | None, own: Callable[[], Node], alarms: Alarms) -> None:
        self._bus, self._edge, self._own, self._alarms = bus, edge, own, alarms
        self._rival_at_s = -RIVAL_S
        self._others: dict[str, Node] = {}
        self._lease: Lease | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._dirty = asyncio.Event()
        self._pushed = asyncio.Condition()
        self._wanted = self._done = 0
        self._told: tuple[CellAddress, ...] | None = None
        self._log = logger("fleet")

    @property
    def others(self) -> Mapping[str, Node]:
        return self._others

    @property
    def cells(self) -> Sequence[CellAddress]:
        """As the edge has them."""
        return self._told or ()

    async def start(self) -> None:
        """From now on the edge and the others know what `own` says."""
        self._lease = await self._bus.leases.hold(f"node/{self._bus.node}", self._own().value())
        await self._look()
        self._tasks = [
            asyncio.create_task(self._push(), name="front-push"),
            asyncio.create_task(self._watch(), name="front-watch"),
        ]
        self.changed()

    def changed(self) -> None:
        """Something is different; told soon. Before `start` nothing happens."""
        self._wanted += 1
        self._dirty.set()

    def edge_started(self) -> None:
        """The edge may have forgotten the list."""
        self._told = None
        self.changed()

    async def flush(self, timeout_s: float = FLUSH_S) -> bool:
        """Until the edge has what was true when this was called. False when it does not take it in time."""
        if not self._tasks:
            return False
        self.changed()
        wanted = self._wanted
        try:
            async with asyncio.timeout(timeout_s), self._pushed:
                await self._pushed.wait_for(lambda: self._done >= wanted)
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._lease is not None:
            await self._lease.close()
            self._lease = None

    async def _push(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            wanted, own = self._wanted, self._own()
            if self._lease is not None:
                self._lease.update(own.value())
            cells = for_edge((own, *self._others.values()))
            if self._edge is not None and cells != self._told:
                try:
                    await self._edge.set_cells(cells)
                except SipServerError as problem:
                    self._log.warning("the edge does not take its list; again soon", error=str(problem))
                    await asyncio.sleep(LOOK_S)
                    self._dirty.set()
                    continue
                self._log.info("cells of the edge", cells=sum(not cell.draining for cell in cells), of=len(cells))
            self._told = cells
            async with self._pushed:
                self._done = wanted
                self._pushed.notify_all()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            await self._look()

    async def _look(self) -> None:
        try:
            found = await self._bus.leases.find("node/")
        except SipServerError:  # the bus is away
            return
        nodes: dict[str, Node] = {}
        for key, value in found.items():
            name = key.removeprefix("node/")
            try:
                nodes[name] = Node.parse(name, value)
            except ValueError as problem:
                self._log.warning("a machine that we do not understand", node=name, error=str(problem))
        self._look_for_rival(nodes.pop(self._bus.node, None))
        came, went = nodes.keys() - self._others.keys(), self._others.keys() - nodes.keys()
        if came or went:
            self._log.info("machines", came=sorted(came), went=sorted(went))
        before, self._others = self._others, nodes
        if for_edge(before.values()) != for_edge(nodes.values()):
            self.changed()

    def _look_for_rival(self, own: Node | None) -> None:
        """Two machines of one name write the same lease in turn, and each closes the calls of the other as crashed."""
        now_s = asyncio.get_running_loop().time()
        if own is not None and own.run not in ("", self._bus.run):
            self._rival_at_s = now_s
        detail = f"another supervisor calls itself {self._bus.node}; give each machine its own fleet.node"
        self._alarms.set("name_taken", now_s - self._rival_at_s < RIVAL_S, detail)
