"""One measured load as plain figures, and straight lines through several of them. Pure.

Owns the arithmetic that benches, plots and the model of scaling share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from tools.bench.load.run import Seen
from tools.bench.report import Figures, percentile

DATABASE = ("postgres",)
"""Kinds of processes that are not the fleet's own: counted apart."""


@dataclass(frozen=True, slots=True)
class Point:
    """A load of `calls` at a time. cpu: percent of a core by kind; cpu_total: their sum, edge and Redis included, the
    database not. memory_mb: PSS by kind. trip_*: echo round trips. late, lost: frames of `frames`. sound_lost: percent
    of clicks that did not come back. generator: percent of a core for SIPp and the callers' sound; machine: everything
    that ran on it."""

    calls: int
    made: int
    failed: int
    cpu: Mapping[str, float]
    cpu_total: float
    memory_mb: Mapping[str, float]
    cell_mb: float
    trip_p50_ms: float
    trip_p95_ms: float
    trip_p99_ms: float
    frames: int
    late: int
    lost: int
    sound_lost: float
    gap_ms: float
    setup_p50_ms: float
    setup_p99_ms: float
    redis_per_s: float
    rows_per_s: float
    generator: float
    machine: float
    generator_drops: int

    @property
    def cpu_a_call(self) -> float:
        return self.cpu_total / max(1, self.calls)

    @property
    def bad_percent(self) -> float:
        return 100 * (self.late + self.lost) / max(1, self.frames + self.lost)

    @property
    def memory_total(self) -> float:
        return own(self.memory_mb)

    def as_figures(self) -> Figures:
        return asdict(self)


def own(by_kind: Mapping[str, float]) -> float:
    """The sum without the database."""
    return sum(value for kind, value in by_kind.items() if kind not in DATABASE)


def of(seen: Seen) -> Point:
    wire, cells = seen.wire, seen.memory_mb.get("cell", [])
    trips = list(wire.trips_ms) or [0.0]
    setups = seen.calls.setup_ms or (0.0,)
    return Point(
        calls=seen.load.calls,
        made=seen.calls.made,
        failed=seen.calls.failed,
        cpu=seen.usage.percent,
        cpu_total=own(seen.usage.percent),
        memory_mb={kind: sum(each) for kind, each in seen.memory_mb.items()},
        cell_mb=max(cells, default=0.0),
        trip_p50_ms=percentile(trips, 0.5),
        trip_p95_ms=percentile(trips, 0.95),
        trip_p99_ms=percentile(trips, 0.99),
        frames=wire.frames,
        late=wire.late,
        lost=wire.lost,
        sound_lost=wire.sound_lost_percent,
        gap_ms=wire.longest_gap_ms,
        setup_p50_ms=percentile(setups, 0.5),
        setup_p99_ms=percentile(setups, 0.99),
        redis_per_s=seen.redis_per_s,
        rows_per_s=seen.rows_per_s,
        generator=seen.generator.total,
        machine=seen.usage.machine,
        generator_drops=wire.generator_drops,
    )


@dataclass(frozen=True, slots=True)
class Line:
    """Least squares: intercept + slope * x. fit: the coefficient of determination."""

    slope: float
    intercept: float
    fit: float


def line(places: Sequence[float], values: Sequence[float]) -> Line:
    """Needs two different places at least; raises ValueError otherwise."""
    x, y = np.asarray(places, float), np.asarray(values, float)
    if len(set(places)) < 2:
        raise ValueError("a line needs two different places")
    slope, intercept = np.polyfit(x, y, 1)
    spread = float(np.sum((y - y.mean()) ** 2))
    rest = float(np.sum((y - (intercept + slope * x)) ** 2))
    return Line(float(slope), float(intercept), 1 - rest / spread if spread > 0 else 1.0)
