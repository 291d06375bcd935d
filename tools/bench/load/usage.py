"""What a tree of processes uses: CPU seconds and memory by kind of process, read from /proc.

Owns the reading and the sorting into kinds. Refuses to know how the processes came to be: a caller names the roots.

A process of the fleet is known by its name (`cell-07`), Kamailio and rtpengine by theirs; any other belongs to the kind
of its root. PSS counts a page that several processes share in parts, so that the sum is what the machine gives.
"""

from __future__ import annotations

import os
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_KINDS = re.compile(r"^(cell|gateway|writer|speech|kamailio|rtpengine|sipserver-warm)\b")
_WORDS = {"sipserver-warm": "zygote"}

Roots = Mapping[str, Iterable[int]]
"""kind -> process ids whose descendants belong to the tree."""


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    parent: int
    name: str
    cpu_s: float
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """at_s: CLOCK_MONOTONIC. busy_s: CPU seconds of the whole machine, whoever used them."""

    at_s: float
    processes: Mapping[int, Process]
    busy_s: float


@dataclass(frozen=True, slots=True)
class Usage:
    """Between two snapshots. percent: of one core, by kind. machine: of one core, everything that ran."""

    seconds: float
    percent: Mapping[str, float] = field(default_factory=dict)
    machine: float = 0.0

    @property
    def total(self) -> float:
        return sum(self.percent.values())


def snapshot(roots: Roots) -> Snapshot:
    """Some milliseconds of work for a hundred processes."""
    at_s, found = time.monotonic(), _all()
    children: dict[int, list[int]] = defaultdict(list)
    for process in found.values():
        children[process.parent].append(process.pid)
    tree: dict[int, Process] = {}
    for kind, pids in roots.items():
        pending = [pid for pid in pids if pid in found]
        while pending:
            process = found[pending.pop()]
            if process.pid in tree:
                continue
            known = _KINDS.match(process.name)
            name = _WORDS.get(known.group(1), known.group(1)) if known else kind
            tree[process.pid] = Process(process.pid, process.parent, process.name, process.cpu_s, name)
            pending += children[process.pid]
    return Snapshot(at_s, tree, _busy_s())


def between(before: Snapshot, after: Snapshot) -> Usage:
    """A process that is new counts from its birth; what one used that died in between is not known."""
    seconds = after.at_s - before.at_s
    used: dict[str, float] = defaultdict(float)
    for pid, process in after.processes.items():
        known = before.processes.get(pid)
        used[process.kind] += process.cpu_s - (known.cpu_s if known is not None else 0.0)
    return Usage(
        seconds,
        {kind: 100 * cpu_s / seconds for kind, cpu_s in sorted(used.items())},
        100 * (after.busy_s - before.busy_s) / seconds,
    )


def memory_mb(taken: Snapshot) -> dict[str, list[float]]:
    """PSS of each process, by kind. Blocks for about a millisecond a process."""
    found: dict[str, list[float]] = defaultdict(list)
    for pid, process in taken.processes.items():
        pss = _pss_mb(pid)
        if pss is not None:
            found[process.kind].append(pss)
    return dict(found)


def _all() -> dict[int, Process]:
    found: dict[int, Process] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                text = Path(f"/proc/{entry}/stat").read_text()
            except OSError:  # it ended while we looked
                continue
            head, _, tail = text.rpartition(")")
            fields = tail.split()
            cpu_s = (int(fields[11]) + int(fields[12])) / _TICKS
            found[int(entry)] = Process(int(entry), int(fields[1]), head.partition("(")[2], cpu_s)
    return found


def _busy_s() -> float:
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    idle = fields[3] + fields[4]
    return (sum(fields[:8]) - idle) / _TICKS


def _pss_mb(pid: int) -> float | None:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        return None
    return None
