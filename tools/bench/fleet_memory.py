"""What a full cell and the whole fleet hold in memory while calls talk, without models."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from tools.bench.fleet_options import Options
from tools.bench.fleet_point import DATABASE
from tools.bench.load import run, sound
from tools.bench.plans import ECHO
from tools.bench.report import Finding, Row, Table, progress

RATE = 25.0


def measure(folder: Path, options: Options) -> Finding:
    calls = options.memory_calls
    with (
        progress("memory", 2) as begin,
        options.target(folder, ECHO, calls) as target,
    ):
        begin("idle")
        _, idle, _ = run.idle(target, 1.0)
        begin(f"{calls} calls")
        load = run.Load("echo", calls, RATE, min(options.seconds, 6.0), pattern=sound.clicks())
        seen = run.run(target, folder / "load", load)
    cells = seen.memory_mb.get("cell", [0.0])
    total = sum(sum(each) for kind, each in seen.memory_mb.items() if kind not in DATABASE)
    rows = [
        Row(
            f"memory of a cell with {calls / max(1, len(cells)):.1f} calls",
            f"{median(cells):.1f} MB, at most {max(cells):.1f} MB",
            "<= 12 MB",
            f"PSS; without calls {median(idle.get('cell', [0.0])):.1f} MB",
        ),
        Row(f"memory of the whole fleet at {calls} calls", f"{total:.0f} MB", "<= 1 GB", "PSS; without the database"),
    ]
    table = Table(
        ("process", "how many", "MB without calls", f"MB at {calls} calls"),
        [
            (kind, str(len(each)), f"{sum(idle.get(kind, [])):.0f}", f"{sum(each):.0f}")
            for kind, each in sorted(seen.memory_mb.items(), key=lambda one: -sum(one[1]))
        ],
    )
    figures = {
        "calls": calls,
        "cells": len(cells),
        "cell_mb": median(cells),
        "cell_most_mb": max(cells),
        "idle_mb": {kind: sum(each) for kind, each in idle.items()},
        "memory_mb": {kind: sum(each) for kind, each in seen.memory_mb.items()},
        "total_mb": total,
    }
    return Finding(rows, [table], {}, figures)
