"""A server whose life is somebody else's: Kamailio or rtpengine of a systemd unit (`edge.run_by: systemd`).

Owns waiting until it is there. Never starts it and never stops it: two who restart the same process would fight for its
ports.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from sipserver.errors import CarrierError

FOUND_S = 10.0
LOOK_S = 0.1


class Adoptable(Protocol):
    """What it takes, of `Edge` and `Rtpengine`. Loop thread."""

    async def adopt(self) -> bool: ...
    async def alive(self, timeout_s: float = ...) -> bool: ...
    async def exited(self) -> None: ...
    async def leave(self) -> None: ...


class Adopted:
    """Has the shape that the supervisor keeps a server by: `start`, `alive`, `exited`, `kill`, `stop`.

    unit: named to the operator.
    """

    def __init__(self, server: Adoptable, unit: str) -> None:
        self._server, self._unit = server, unit

    async def start(self, timeout_s: float = FOUND_S) -> None:
        """Returns when it runs and answers. Raises CarrierError when it does not in time; ask again later."""
        await self._server.leave()
        deadline = time.monotonic() + timeout_s
        while not await self._server.adopt():
            if time.monotonic() > deadline:
                raise CarrierError(f"{self._unit} does not run; look at: systemctl status {self._unit}")
            await asyncio.sleep(LOOK_S)

    async def alive(self) -> bool:
        """It answers."""
        return await self._server.alive()

    async def kill(self) -> None:
        """Let it hang: the unit's owner ends it. `start` waits until it answers again."""
        await self._server.leave()

    async def exited(self) -> None:
        """Returns when it is gone."""
        await self._server.exited()

    async def stop(self) -> None:
        """Let it run."""
        await self._server.leave()
