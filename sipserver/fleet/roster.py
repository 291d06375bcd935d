"""The cells of all machines as the edges see them: who is on the list, and what this machine tells the others.

Owns the list and the value of the lease `node/<node>`. Pure: `front.py` carries both to where they are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sipserver.edge.cells import CellAddress
from sipserver.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the fleet. cells: those that drain among them, as their calls still need the edge. draining: none of
    them takes new calls. run: this life of its supervisor."""

    name: str
    cells: tuple[CellAddress, ...]
    calls: int = 0
    draining: bool = False
    run: str = ""

    def value(self) -> dict[str, Any]:
        """Of its lease."""
        cells = [[cell.host, cell.port, cell.calls, cell.draining, cell.run] for cell in self.cells]
        return {"cells": cells, "calls": self.calls, "draining": self.draining, "run": self.run}

    @classmethod
    def parse(cls, name: str, value: Mapping[str, Any]) -> Node:
        """Raises ValueError for what another version may have written."""
        try:
            cells = tuple(
                CellAddress(str(host), int(port), int(calls), bool(draining), str(run))
                for host, port, calls, draining, run in value["cells"]
            )
            return cls(name, cells, int(value["calls"]), bool(value["draining"]), str(value.get("run", "")))
        except (KeyError, TypeError, SettingsError) as problem:
            raise ValueError(f"not a node: {problem}") from None

    @property
    def takes_calls(self) -> bool:
        return not self.draining and any(not cell.draining for cell in self.cells)


def for_edge(nodes: Iterable[Node]) -> tuple[CellAddress, ...]:
    """The edge's list, in a stable order."""
    cells = (replace(cell, draining=cell.draining or node.draining) for node in nodes for cell in node.cells)
    return tuple(sorted(cells, key=lambda cell: (cell.host, cell.port, cell.run)))
