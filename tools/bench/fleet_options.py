"""What a run of the fleet's benches is asked for, and the target that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.bench.load.target import FleetTarget, PeerTarget, SeveralTarget, Target


@dataclass(frozen=True, slots=True)
class Options:
    """steps: calls at a time, one load each. seconds: how long each is measured. calls: for benches with one load.
    rates: new calls a second. rate_s: how long each rate goes on. total: calls of the long load at the largest step
    (0: none). peer, peer_pid: somebody else's server instead of ours. several: single servers behind the edge. plots:
    where pictures go; None: none are made."""

    steps: tuple[int, ...] = (25, 50, 100, 150, 200, 250)
    seconds: float = 10.0
    calls: int = 250
    agent_calls: int = 100
    memory_calls: int = 200
    rates: tuple[int, ...] = (20, 50, 100, 120, 150)
    rate_s: float = 10.0
    long_rate: int = 100
    long_rate_s: float = 60.0
    total: int = 1_000
    peer: str = ""
    peer_pid: int = 0
    several: bool = False
    plots: Path | None = None

    def target(self, folder: Path, plan: str, calls: int, overrides: Mapping[str, Any] | None = None) -> Target:
        """Not started yet: use it as a context manager."""
        if self.peer:
            return PeerTarget(self.peer, self.peer_pid)
        kind = SeveralTarget if self.several else FleetTarget
        return kind(folder, plan, calls, overrides)

    def fleet(self, folder: Path, plan: str, calls: int, overrides: Mapping[str, Any] | None = None) -> FleetTarget:
        """For benches that need a supervisor. Raises ValueError for other targets."""
        if self.peer or self.several:
            raise ValueError("this bench needs a fleet: neither --peer nor --several")
        return FleetTarget(folder, plan, calls, overrides)
