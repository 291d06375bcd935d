"""Rows, statistics and the table: printed, and written to docs/benchmarks.md with the machine and the date."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs/benchmarks.md"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. target: what it must reach, empty where none is set."""

    what: str
    figure: str
    target: str = ""
    how: str = ""


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


def markdown(rows: Sequence[Row]) -> str:
    lines = ["| what | measured | target | how |", "| --- | --- | --- | --- |"]
    lines += [f"| {row.what} | {row.figure} | {row.target} | {row.how} |" for row in rows]
    return "\n".join(lines)


def write(title: str, rows: Sequence[Row], command: str) -> None:
    """Replace the section `title` of docs/benchmarks.md, or append it."""
    text = DOCUMENT.read_text() if DOCUMENT.exists() else "# Benchmarks\n"
    head, _, rest = text.partition(f"\n## {title}\n")
    _, mark, after = rest.partition("\n## ")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    section = f"\n## {title}\n\n`{command}` on {machine()}, {today}.\n\n{markdown(rows)}\n"
    DOCUMENT.write_text(head.rstrip("\n") + "\n" + section + (f"\n## {after}" if mark else ""))
