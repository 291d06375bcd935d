"""How cost grows: straight lines through what `fleet-steps` and `fleet-rate` found. Measures nothing itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tools.bench.fleet_point import Line, line, own
from tools.bench.report import Figures, Finding, Table

LEAST = 0.005
"""Kinds whose share is smaller are left out of the table."""


def find(known: dict[str, Figures]) -> Finding:
    """From the figures of both benches. Raises ValueError when one of them has not run."""
    if not {"fleet-steps", "fleet-rate"} <= known.keys():
        raise ValueError("fleet-growth needs the figures of fleet-steps and fleet-rate: run them first")
    points, rates = known["fleet-steps"]["points"], known["fleet-rate"]["rates"]
    calls = [float(point["calls"]) for point in points]
    per_call = {
        "CPU, all, % of a core": line(calls, [point["cpu_total"] for point in points]),
        **{f"CPU, {kind}": line(calls, _kind(points, "cpu", kind)) for kind in _kinds(points, "cpu")},
        "memory, all, MB": line(calls, [own(point["memory_mb"]) for point in points]),
        **{f"memory, {kind}, MB": line(calls, _kind(points, "memory_mb", kind)) for kind in ("cell", "redis")},
        "echo p95, ms": line(calls, [point["trip_p95_ms"] for point in points]),
        "Redis operations a second": line(calls, [point["redis_per_s"] for point in points]),
    }
    paces = [float(rate["rate"]) for rate in rates]
    per_rate = {
        "CPU, all, % of a core": line(paces, [rate["cpu_total"] for rate in rates]),
        **{f"CPU, {kind}": line(paces, _kind(rates, "cpu", kind)) for kind in _kinds(rates, "cpu")},
        "Redis operations a second": line(paces, [rate["redis_per_call"] * rate["rate"] for rate in rates]),
        "rows written a second": line(paces, [rate["rows_per_call"] * rate["rate"] for rate in rates]),
    }
    return Finding(
        tables=[_table("a call at a time", per_call), _table("a new call a second", per_rate)],
        figures={
            "per_call": {name: asdict(found) for name, found in per_call.items()},
            "per_rate": {name: asdict(found) for name, found in per_rate.items()},
        },
        note="Least squares through `fleet-steps` and `fleet-rate`; fit is the coefficient of determination.",
    )


def _kinds(points: Sequence[dict[str, Any]], of: str) -> list[str]:
    return sorted({kind for point in points for kind in point[of]})


def _kind(points: Sequence[dict[str, Any]], of: str, kind: str) -> list[float]:
    return [float(point[of].get(kind, 0.0)) for point in points]


def _table(more: str, found: dict[str, Line]) -> Table:
    return Table(
        ("what", f"for {more}", "without", "fit"),
        [
            (name, f"{each.slope:.4f}", f"{each.intercept:.1f}", f"{each.fit:.3f}")
            for name, each in found.items()
            if abs(each.slope) > LEAST or "all" in name
        ],
    )
