"""Where the inside doors of other machines are, as a moment ago.

Owns how they stand on the bus, and that not every file is a question: leases are found by a walk through all keys of
Redis, which is too much for each file of a person's copy. Refuses to know what is behind a door.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sipserver.bus.contract import Json, Leases

KNOWN_S = 2.0


def of_machine(node: str) -> str:
    """How the keys of a machine's doors begin; each gateway of it has one, `host` and `port`."""
    return f"files/{node}/"


class Doors:
    """Loop thread."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._known: dict[str, tuple[float, Sequence[Json]]] = {}

    async def of(self, node: str) -> Sequence[Json]:
        """Raises BusDown."""
        now_s = asyncio.get_running_loop().time()
        until_s, doors = self._known.get(node, (now_s, ()))
        if now_s >= until_s:
            doors = list((await self._leases.find(of_machine(node))).values())
            self._known[node] = now_s + KNOWN_S, doors
        return doors

    def forget(self, node: str) -> None:
        """They are looked for when they are wanted again."""
        self._known.pop(node, None)
