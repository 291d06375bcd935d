"""docs/scaling.md out of docs/benchmarks.json: what a machine of 8 cores and ten machines carry, and what limits them.

`python -m tools.bench.scaling [--write]`. Owns the model and its assumptions. Measures nothing: `fleet-steps`,
`fleet-rate` and `fleet-memory` do, on one machine; the model stretches straight lines, and says so.

The model of a machine's CPU, percent of a core:

    fixed + cells * cell at rest + calls * running call + calls a second * setting up and recording a call

The edge fills one cell after the other, so a running call carries its share of the cell that it helps to fill.

Redis, PostgreSQL and what they do a second are counted for all machines together.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.bench.fleet_point import line
from tools.bench.report import FIGURES, ROOT, Table

DOCUMENT = ROOT / "docs/scaling.md"
BEGIN, END = "<!-- computed by tools/bench/scaling.py: begin -->", "<!-- computed: end -->"
SHARED = ("redis", "postgres")
"""Kinds of processes that all machines share."""


@dataclass(frozen=True, slots=True)
class Assumed:
    """call_s: mean length of a call. busy: share of the cores that may be used, so that sound keeps its pace."""

    call_s: float = 180.0
    busy: float = 0.75


@dataclass(frozen=True, slots=True)
class Costs:
    """What was measured. Percent of a core, MB, operations. cell_calls: places a cell.

    edge_*: Kamailio's part of them. redis_cpu_*, database_cpu_*: of the shared servers."""

    cell_calls: float
    fixed_cpu: float
    idle_cell_cpu: float
    call_cpu: float
    start_cpu: float
    edge_start_cpu: float
    fixed_mb: float
    cell_mb: float
    redis_idle_per_cell: float
    redis_per_call: float
    redis_per_start: float
    redis_cpu_per_operation: float
    rows_per_start: float
    database_cpu_per_start: float
    measured_calls: int
    measured_rate: float


@dataclass(frozen=True, slots=True)
class Load:
    """One machine of several under `calls` calls in all; cpu: percent of a core a machine, shared servers not included.
    redis_*, rows_*, database_*: of the one Redis and the one PostgreSQL of all machines."""

    machines: int
    cores: int
    calls: int
    cells: int
    starts_per_s: float
    cpu: float
    edge_cpu: float
    memory_mb: float
    redis_per_s: float
    redis_cpu: float
    rows_per_s: float
    database_cpu: float

    @property
    def busy(self) -> float:
        """Share of the machine's cores."""
        return self.cpu / (100 * self.cores)


def costs(figures: Mapping[str, Any]) -> Costs:
    """From docs/benchmarks.json. Raises ValueError when a bench has not run."""
    needed = {"fleet-steps", "fleet-rate", "fleet-memory"}
    if missing := needed - figures.keys():
        raise ValueError(f"no figures of {', '.join(sorted(missing))}: run `make bench-fleet BENCH_ARGS=--write` first")
    steps, rates, memory = (figures[name] for name in ("fleet-steps", "fleet-rate", "fleet-memory"))
    points, paces = steps["points"], rates["rates"]
    idle, cells = steps["idle"]["cpu"], max(1, int(steps["cells"]))
    calls = [float(point["calls"]) for point in points]
    pace = [float(each["rate"]) for each in paces]
    running = line(calls, [_own(point["cpu"]) for point in points]).slope
    fixed = _own(idle) - float(idle.get("cell", 0.0))
    starting = line(pace, [_own(each["cpu"]) for each in paces]).slope
    redis_idle = float(steps["idle"]["redis_per_s"])
    redis_running = line(calls, [float(point["redis_per_s"]) for point in points]).slope
    redis_busy = [float(each["redis_per_call"]) for each in paces]
    per_start = min(redis_busy)  # at a high rate the idle beats weigh least
    operations = line(pace, [float(each["redis_per_call"]) * float(each["rate"]) for each in paces])
    redis_cpu = line(pace, [float(each["cpu"].get("redis", 0.0)) for each in paces]).slope
    held = memory["memory_mb"]
    last = points[-1]
    return Costs(
        cell_calls=float(last["calls"]) / cells,
        fixed_cpu=fixed,
        idle_cell_cpu=float(idle.get("cell", 0.0)) / cells,
        call_cpu=running,
        # calls of the rate bench talk for half a second each: their running cost is not counted twice
        start_cpu=max(0.0, starting - running * rates.get("hold_s", 0.5)),
        edge_start_cpu=line(pace, [float(each["cpu"].get("kamailio", 0.0)) for each in paces]).slope,
        fixed_mb=sum(mb for kind, mb in held.items() if kind not in ("cell", *SHARED)),
        cell_mb=float(memory["cell_mb"]),
        redis_idle_per_cell=redis_idle / cells,
        redis_per_call=max(0.0, redis_running),
        redis_per_start=per_start,
        redis_cpu_per_operation=max(0.0, redis_cpu) / max(1e-9, operations.slope),
        rows_per_start=sum(float(each["rows_per_call"]) for each in paces) / len(paces),
        database_cpu_per_start=max(0.0, line(pace, [float(each["cpu"].get("postgres", 0.0)) for each in paces]).slope),
        measured_calls=int(last["calls"]),
        measured_rate=max(pace),
    )


def load(found: Costs, assumed: Assumed, *, calls: int, machines: int = 1, cores: int = 8) -> Load:
    here = -(-calls // machines)
    cells = round(-(-here // found.cell_calls))
    starts = here / assumed.call_s
    all_cells, all_starts = cells * machines, starts * machines
    operations = (
        found.redis_idle_per_cell * all_cells + found.redis_per_call * calls + found.redis_per_start * all_starts
    )
    return Load(
        machines=machines,
        cores=cores,
        calls=calls,
        cells=cells,
        starts_per_s=starts,
        cpu=found.fixed_cpu + cells * found.idle_cell_cpu + here * found.call_cpu + starts * found.start_cpu,
        edge_cpu=starts * found.edge_start_cpu,
        memory_mb=found.fixed_mb + cells * found.cell_mb,
        redis_per_s=operations,
        redis_cpu=operations * found.redis_cpu_per_operation,
        rows_per_s=found.rows_per_start * all_starts,
        database_cpu=found.database_cpu_per_start * all_starts,
    )


def most(found: Costs, assumed: Assumed, *, cores: int = 8, busy: float | None = None) -> int:
    """Calls that keep one machine at the assumed share of its cores (or at another)."""
    share = assumed.busy if busy is None else busy
    each = found.idle_cell_cpu / found.cell_calls + found.call_cpu + found.start_cpu / assumed.call_s
    return max(0, int((100 * cores * share - found.fixed_cpu) / each))


def text(found: Costs, assumed: Assumed, origin: str) -> str:
    """The computed part of docs/scaling.md."""
    comfortable, full = most(found, assumed), most(found, assumed, busy=1.0)
    aim = load(found, assumed, calls=1_000)
    verdict = (
        "come out"
        if aim.busy <= assumed.busy
        else "fit, with less room than assumed"
        if aim.busy <= 1
        else "do not fit"
    )
    loads = [
        load(found, assumed, calls=250, cores=2),
        aim,
        load(found, assumed, calls=comfortable),
        load(found, assumed, calls=1_000 * 10, machines=10),
    ]
    measured = Table(
        ("measured", "figure"),
        [
            ("a running call, with its share of the cell that it helps to fill", f"{found.call_cpu:.3f} % of a core"),
            ("a call set up, recorded and ended", f"{found.start_cpu * 10:.1f} ms of CPU"),
            ("... of this Kamailio", f"{found.edge_start_cpu * 10:.2f} ms of CPU"),
            ("a cell without calls", f"{found.idle_cell_cpu:.2f} % of a core"),
            ("... its memory with calls", f"{found.cell_mb:.1f} MB"),
            ("everything else, idle", f"{found.fixed_cpu:.1f} % of a core, {found.fixed_mb:.0f} MB"),
            (
                "Redis operations",
                f"{found.redis_per_start:.1f} a call, {found.redis_idle_per_cell:.2f} a second and cell",
            ),
            ("a Redis operation", f"{found.redis_cpu_per_operation * 10_000:.0f} us of CPU"),
            ("rows in the database", f"{found.rows_per_start:.1f} a call"),
            ("... PostgreSQL for a call", f"{found.database_cpu_per_start * 10:.1f} ms of CPU"),
        ],
    )
    return "\n\n".join(
        [
            f"Measured with up to {found.measured_calls} calls and {found.measured_rate:g} calls a second ({origin}).",
            measured.markdown(),
            f"Assumed: calls of {assumed.call_s:.0f} s, {assumed.busy:.0%} of the cores in use at most.",
            _table(loads).markdown(),
            (
                f"One machine of 8 cores: **{comfortable} calls** at {assumed.busy:.0%} of its cores, {full} when "
                f"nothing is left. 1,000 calls on 8 cores {verdict}: they use {aim.busy:.0%} of them."
            ),
        ]
    )


def _table(loads: Sequence[Load]) -> Table:
    rows: list[tuple[str, ...]] = [
        ("cores a machine", *(str(each.cores) for each in loads)),
        ("cells a machine", *(str(each.cells) for each in loads)),
        ("new calls a second, all machines", *(f"{each.starts_per_s * each.machines:.1f}" for each in loads)),
        ("CPU a machine, cores", *(f"{each.cpu / 100:.2f}" for each in loads)),
        ("... share of its cores", *(f"{each.busy:.0%}" for each in loads)),
        ("... the edge's part, cores", *(f"{each.edge_cpu / 100:.3f}" for each in loads)),
        ("memory a machine, GB", *(f"{each.memory_mb / 1024:.2f}" for each in loads)),
        ("Redis, operations a second", *(f"{each.redis_per_s:.0f}" for each in loads)),
        ("Redis, cores", *(f"{each.redis_cpu / 100:.3f}" for each in loads)),
        ("database, rows a second", *(f"{each.rows_per_s:.0f}" for each in loads)),
        ("database, cores", *(f"{each.database_cpu / 100:.3f}" for each in loads)),
    ]
    head = (f"{each.calls} calls on {each.machines} machine{'s' * (each.machines > 1)}" for each in loads)
    return Table(("", *head), rows)


def _own(cpu: Mapping[str, float]) -> float:
    return sum(percent for kind, percent in cpu.items() if kind not in SHARED)


def put(document: str, computed: str) -> str:
    """The document with the part between its marks replaced. Raises ValueError without marks."""
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{DOCUMENT} has lost its marks")
    return f"{head}{BEGIN}\n\n{computed}\n\n{END}{tail}"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench.scaling", description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="renew docs/scaling.md")
    parser.add_argument("--figures", type=Path, default=FIGURES, help="the benches' figures")
    parser.add_argument("--call-seconds", type=float, default=Assumed().call_s)
    parser.add_argument("--busy", type=float, default=Assumed().busy, help="share of the cores, 0..1")
    given = parser.parse_args(arguments)
    figures = json.loads(given.figures.read_text()) if given.figures.exists() else {}
    try:
        found = costs(figures)
    except ValueError as problem:
        print(f"scaling: {problem}", file=sys.stderr)
        return 1
    steps = figures["fleet-steps"]
    computed = text(
        found, Assumed(given.call_seconds, given.busy), f"{steps.get('machine', '')}, {steps.get('date', '')}"
    )
    print(computed)
    if given.write:
        DOCUMENT.write_text(put(DOCUMENT.read_text(), computed))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
