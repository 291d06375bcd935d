"""The cells of all machines as the edges see them: who is on the list, and what this machine tells the others.

Owns the list and the value of the lease `node/<node>`. Pure: `front.py` carries both to where they are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, order=True)
class CellAddress:
    """Where an edge finds a cell. calls: how many it takes at a time."""

    node: str
    host: str
    port: int
    calls: int

    @property
    def uri(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"sip:{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the fleet. draining: it takes no new calls."""

    name: str
    cells: tuple[CellAddress, ...]
    calls: int = 0
    draining: bool = False

    def value(self) -> dict[str, Any]:
        """Of its lease."""
        cells = [[cell.host, cell.port, cell.calls] for cell in self.cells]
        return {"cells": cells, "calls": self.calls, "draining": self.draining}

    @classmethod
    def parse(cls, name: str, value: Mapping[str, Any]) -> Node:
        """Raises ValueError for what another version may have written."""
        try:
            cells = tuple(CellAddress(name, str(host), int(port), int(calls)) for host, port, calls in value["cells"])
            return cls(name, cells, int(value["calls"]), bool(value["draining"]))
        except (KeyError, TypeError) as problem:
            raise ValueError(f"not a node: {problem}") from None


def for_edge(own: Node, others: Iterable[Node]) -> tuple[CellAddress, ...]:
    """Every cell that takes new calls, in a stable order."""
    return tuple(sorted(cell for node in (own, *others) if not node.draining for cell in node.cells))
