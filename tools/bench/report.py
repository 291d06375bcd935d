"""What a bench has found: rows, tables, plots and figures; printed, and written to docs/ with the machine and the date.

docs/benchmarks.md is for people, docs/benchmarks.json for `tools.bench.scaling` and for benches that build on others.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs/benchmarks.md"
FIGURES = ROOT / "docs/benchmarks.json"
PLOTS = ROOT / "docs/plots"

Figures = dict[str, Any]
"""Plain JSON-able values by name."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. target: what it must reach, empty where none is set."""

    what: str
    figure: str
    target: str = ""
    how: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """For what is a series rather than a list of answers."""

    head: Sequence[str]
    lines: Sequence[Sequence[str]]

    def markdown(self) -> str:
        lines = [
            " | ".join(self.head),
            " | ".join("---" for _ in self.head),
            *(" | ".join(line) for line in self.lines),
        ]
        return "\n".join(f"| {line} |" for line in lines)


@dataclass(frozen=True, slots=True)
class Finding:
    """All of one bench. plots: caption -> file in PLOTS. note: what a reader must know about the figures."""

    rows: Sequence[Row] = ()
    tables: Sequence[Table] = ()
    plots: Mapping[str, Path] = field(default_factory=dict)
    figures: Figures = field(default_factory=dict)
    note: str = ""

    def markdown(self) -> str:
        parts = [self.note] if self.note else []
        parts += [markdown(self.rows)] if self.rows else []
        parts += [table.markdown() for table in self.tables]
        parts += [f"![{caption}](plots/{file.name})" for caption, file in self.plots.items()]
        return "\n\n".join(parts)


@contextlib.contextmanager
def progress(title: str, steps: int) -> Iterator[Callable[[str], None]]:
    """A bar on the terminal while a bench runs; the function that it gives says which step begins."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=steps)
        begun = 0

        def begin(what: str) -> None:
            nonlocal begun
            bar.update(task, completed=begun, description=f"{title}: {what}")
            begun += 1

        yield begin
        bar.update(task, completed=steps, description=title)


def percentile(values: Sequence[float], part: float) -> float:
    """The nearest-rank percentile; part 0..1."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def spread(values: Sequence[float], unit: str = "ms", digits: int = 0) -> str:
    """`p50 / p95 (n)` of a list."""
    return (
        f"p50 {statistics.median(values):.{digits}f} {unit}, p95 {percentile(values, 0.95):.{digits}f} {unit}"
        f" (n={len(values)})"
    )


def machine() -> str:
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return (
        f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    )


def pace_s() -> float:
    """How fast the machine is at this moment: CPU seconds for ten million additions in Python, the median of five.

    Virtual machines of one name differ by a factor of two; figures of two days are compared by this one.
    """
    taken = []
    for _ in range(5):
        began, total = time.process_time(), 0
        for number in range(2_000_000):
            total += number
        taken.append(5 * (time.process_time() - began))
    return statistics.median(taken)


def markdown(rows: Sequence[Row]) -> str:
    lines = ["| what | measured | target | how |", "| --- | --- | --- | --- |"]
    lines += [f"| {row.what} | {row.figure} | {row.target} | {row.how} |" for row in rows]
    return "\n".join(lines)


def write(title: str, rows: Sequence[Row], command: str) -> None:
    """Replace the section `title` of docs/benchmarks.md, or append it."""
    write_section(title, markdown(rows), command)


def write_section(title: str, body: str, command: str) -> None:
    text = DOCUMENT.read_text() if DOCUMENT.exists() else "# Benchmarks\n"
    head, _, rest = text.partition(f"\n## {title}\n")
    _, mark, after = rest.partition("\n## ")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    where = f"{machine()}, {today}; ten million additions in Python take it {pace_s():.2f} s of CPU"
    section = f"\n## {title}\n\n`{command}` on {where}.\n\n{body}\n"
    DOCUMENT.write_text(head.rstrip("\n") + "\n" + section + (f"\n## {after}" if mark else ""))


def figures() -> dict[str, Figures]:
    """What earlier runs wrote, by the bench's name."""
    if not FIGURES.exists():
        return {}
    found: dict[str, Figures] = json.loads(FIGURES.read_text())
    return found


def write_figures(name: str, found: Figures) -> None:
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    where = {"machine": machine(), "cores": os.cpu_count(), "pace_s": round(pace_s(), 3), "date": today}
    kept = {**figures(), name: {**found, **where}}
    FIGURES.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")
