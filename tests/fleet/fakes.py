"""An edge that only remembers, and a supervisor as a program of its own."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import uvloop

from sipserver import log, settings
from sipserver.bus.memory import MemoryBus
from sipserver.edge.cells import CellAddress
from sipserver.errors import CarrierError
from sipserver.fleet.main import serve
from sipserver.fleet.process import become_subreaper
from sipserver.fleet.supervisor import Supervisor


class FakeEdge:
    """lists: every list of cells that it was given, as the ports of those that take new calls. down: takes none.
    hangs: until it is killed."""

    def __init__(self) -> None:
        self.lists: list[list[int]] = []
        self.draining: list[bool] = []
        self.starts = 0
        self.down = self.hangs = False
        self.kills = 0
        self.died = asyncio.Event()

    @property
    def ports(self) -> list[int]:
        return self.lists[-1] if self.lists else []

    async def start(self) -> None:
        self.starts += 1
        self.died.clear()

    async def alive(self) -> bool:
        return not self.hangs

    async def kill(self) -> None:
        self.kills += 1
        self.hangs = False

    async def exited(self) -> None:
        await self.died.wait()

    async def stop(self) -> None:
        self.died.clear()

    async def set_cells(self, cells: Sequence[CellAddress]) -> None:
        if self.down:
            raise CarrierError("it is down")
        self.lists.append([cell.port for cell in cells if not cell.draining])

    async def drain(self, on: bool) -> None:
        self.draining.append(on)

    async def stats(self) -> Mapping[str, Any]:
        return {"cells_living": len(self.ports), "cells_dead": 0, "calls": 0, "draining": self.draining[-1]}


KINDS = "tests.fleet.kinds:KINDS"


def main(file: Path) -> None:
    """`python -m tests.fleet.fakes FILE`: a supervisor with test kinds, without an edge."""
    loaded = settings.load(file)
    log.setup(process="supervisor", node="m1")
    become_subreaper()
    bus = MemoryBus(node="m1", run=uuid.uuid4().hex)
    with log.background():
        uvloop.run(serve(lambda: Supervisor(loaded, file, bus, kinds=KINDS, cores=1)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
