"""More and more calls at a time: what they cost, how long sound takes, what is late or lost.

Every call sends and hears sound; every call is measured. A caller's clicks come back through the whole path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tools.bench import plots
from tools.bench.fleet_options import Options
from tools.bench.fleet_point import Point, line, of, own
from tools.bench.load import run, sound
from tools.bench.plans import ECHO
from tools.bench.report import Finding, Row, Table, progress

RATE = 25.0
LONG_CALL_S = 20.0
HEAD = (
    "calls",
    "failed",
    "CPU, % of a core",
    "... a call",
    "memory, MB",
    "echo p50 / p95 / p99, ms",
    "frames late / lost",
    "longest gap, ms",
    "Redis a second",
    "load generator, % of a core",
)
NOTE = (
    "CPU and memory (PSS) of all processes, edge and Redis included, the database not. Round trips are measured on "
    "every call, from the system call that sends a click to the kernel's stamp of the packet that brings it back. A "
    "frame is late when it comes more than 40 ms after its turn. The load generator runs on the same cores."
)


def measure(folder: Path, options: Options) -> Finding:
    most = max(options.steps)
    points: list[Point] = []
    with (
        progress("calls", len(options.steps) + 2) as begin,
        options.target(folder, ECHO, most) as target,
    ):
        begin("idle")
        rest, memory, redis_idle = run.idle(target)
        for calls in options.steps:
            begin(f"{calls} calls")
            load = run.Load("echo", calls, RATE, options.seconds, pattern=sound.clicks())
            points.append(of(run.run(target, folder / f"load-{calls}", load)))
            run.await_nothing_left(target)
        begin(f"{options.total} calls, {most} at a time")
        long = (
            replace(load, calls=most, total=options.total, hold_s=max(LONG_CALL_S, most / RATE + run.SETTLE_S + 5))
            if options.total
            else None
        )
        lasting = run.run(target, folder / "long", long) if long is not None else None
        run.await_nothing_left(target)
        left = target.left()
        cells = target.cells
    idle_memory = {kind: sum(each) for kind, each in memory.items()}
    rows = [
        Row("CPU without calls", f"{own(rest.percent):.1f} % of a core", "", f"{cells} cells"),
        Row("memory without calls", f"{own(idle_memory):.0f} MB"),
        *_targets(points),
    ]
    if lasting is not None:
        found = of(lasting)
        rows.append(
            Row(
                f"{lasting.calls.made} calls, {most} at a time: failed",
                f"{lasting.calls.failed} ({len(lasting.calls.stuck)} stuck)",
                "0",
                f"late or lost {found.bad_percent:.3f} %, echo p95 {found.trip_p95_ms:.1f} ms",
            )
        )
    rows.append(
        Row(
            "left over when no call lives",
            f"{left.loads} at the edge, {left.calls} in cells, {left.limits} limits",
            "0",
        )
    )
    return Finding(
        rows,
        [Table(HEAD, [_line(point) for point in points])],
        _plots(points, options.plots) if options.plots else {},
        {
            "points": [point.as_figures() for point in points],
            "idle": {"cpu": dict(rest.percent), "memory_mb": idle_memory, "redis_per_s": redis_idle},
            "cells": cells,
        },
        NOTE,
    )


def _targets(points: Sequence[Point]) -> list[Row]:
    """What the largest load shows against what it must reach."""
    last = points[-1]
    at_150 = [point for point in points if point.calls == 150]
    rows = [
        Row(
            f"CPU a call at {last.calls} calls",
            f"{last.cpu_a_call:.3f} % of a core",
            "<= 0.65 %",
            "edge and Redis included",
        ),
        Row(f"echo round trip p95 at {last.calls} calls", f"{last.trip_p95_ms:.1f} ms", "<= 60 ms"),
    ]
    rows += [Row("echo round trip p95 at 150 calls", f"{point.trip_p95_ms:.1f} ms", "<= 50 ms") for point in at_150]
    rows.append(
        Row(
            f"frames late or lost at {last.calls} calls",
            f"{last.bad_percent:.3f} %",
            "< 0.1 %",
            f"{last.frames} frames; clicks that did not come back: {last.sound_lost:.3f} %",
        )
    )
    return rows


def _line(point: Point) -> tuple[str, ...]:
    return (
        str(point.calls),
        f"{point.failed} of {point.made}",
        f"{point.cpu_total:.1f}",
        f"{point.cpu_a_call:.3f}",
        f"{point.memory_total:.0f}",
        f"{point.trip_p50_ms:.1f} / {point.trip_p95_ms:.1f} / {point.trip_p99_ms:.1f}",
        f"{point.late} / {point.lost} of {point.frames}",
        f"{point.gap_ms:.0f}",
        f"{point.redis_per_s:.0f}",
        f"{point.generator:.1f}",
    )


def _plots(points: Sequence[Point], folder: Path) -> dict[str, Path]:
    calls = [float(point.calls) for point in points]
    kinds = sorted({kind for point in points for kind in point.cpu}, key=lambda kind: -points[-1].cpu.get(kind, 0))
    total = [point.cpu_total for point in points]
    fitted = {}
    if len(points) > 1:
        straight = line(calls, total)
        fitted = {"all": (straight.slope, straight.intercept)}
    return {
        "CPU by calls": plots.lines(
            folder / "fleet-cpu.png",
            {
                "all": (calls, total),
                **{kind: (calls, [point.cpu.get(kind, 0.0) for point in points]) for kind in kinds[:4]},
            },
            x="calls at a time",
            y="% of a core",
            fitted=fitted,
        ),
        "Echo round trip by calls": plots.lines(
            folder / "fleet-echo.png",
            {
                "p50": (calls, [point.trip_p50_ms for point in points]),
                "p95": (calls, [point.trip_p95_ms for point in points]),
                "p99": (calls, [point.trip_p99_ms for point in points]),
            },
            x="calls at a time",
            y="ms",
            limit=("p95 must be below at 250", 60.0),
        ),
        "Memory by calls": plots.lines(
            folder / "fleet-memory.png",
            {"all": (calls, [point.memory_total for point in points])},
            x="calls at a time",
            y="PSS, MB",
        ),
    }
