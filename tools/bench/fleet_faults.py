"""What callers notice when a cell is killed, when a machine is drained, and when all its processes are replaced.

All under load with sound; every call is measured.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from tests.harness.fleet import FleetProcess, Part
from tools.bench.fleet_options import Options
from tools.bench.load import run, sound, wire
from tools.bench.load.run import Seen
from tools.bench.load.sipp import Sipp
from tools.bench.plans import ECHO
from tools.bench.report import Finding, Row, progress

RATE = 25.0
AFTER_S = 4.0
"""How long after the blow the other calls are looked at."""
BACK_S = 10.0
DRAIN_S = 120
FRESH_S = 120.0
"""How long all processes may take to be replaced."""


@dataclass
class _Blow:
    """at_ns: CLOCK_REALTIME. back_s: until the cell was ready again; negative: not within BACK_S."""

    cell: Part | None = None
    at_ns: int = 0
    back_s: float = -1.0


def measure_kill(folder: Path, options: Options) -> Finding:
    blow = _Blow()
    with (
        progress("a cell is killed", 1) as begin,
        options.fleet(folder, ECHO, options.calls) as target,
    ):
        begin(f"{options.calls} calls")

        def kill(_sipp: Sipp) -> None:
            time.sleep(AFTER_S)
            _kill_a_cell(target.fleet, blow)
            time.sleep(AFTER_S)

        load = run.Load("echo", options.calls, RATE, 2 * AFTER_S + BACK_S, pattern=sound.clicks())
        seen = run.run(target, folder / "load", load, kill)
        run.await_nothing_left(target)
        left = target.left()
    assert seen.recording is not None
    before = wire.judge(seen.recording, seen.window_ns[0], blow.at_ns)
    after = wire.judge(seen.recording, blow.at_ns, blow.at_ns + int(AFTER_S * 1e9))
    silenced = [call for call in after.calls if call.cut]
    others = [call.gap_ms for call in after.calls if not call.cut]
    calls = blow.cell.calls if blow.cell is not None else 0
    rows = [
        Row(
            f"cell killed with -9 at {options.calls} calls: calls lost",
            f"{len(silenced)} ({seen.calls.failed} failed for SIPp)",
            "<= calls of a cell",
            f"the cell had {calls} calls",
        ),
        Row(
            "... longest gap that another call heard",
            f"{max(others, default=0):.0f} ms",
            "<= 60 ms",
            f"{len(others)} calls within {AFTER_S:g} s; before the blow {before.longest_gap_ms:.0f} ms",
        ),
        Row("... until the cell took calls again", f"{blow.back_s:.2f} s", "< 1 s"),
        Row("... left over", f"{left.loads} at the edge, {left.calls} in cells, {left.limits} limits", "0"),
    ]
    figures = {
        "calls": options.calls,
        "lost": len(silenced),
        "failed": seen.calls.failed,
        "gap_ms": max(others, default=0.0),
        "gap_before_ms": before.longest_gap_ms,
        "back_s": blow.back_s,
        "left": left.loads + left.calls + left.limits,
    }
    return Finding(rows, figures=figures)


def _kill_a_cell(fleet: FleetProcess, blow: _Blow) -> None:
    """The fullest one; then wait for its successor."""
    blow.cell = max(fleet.of("cell"), key=lambda cell: cell.calls)
    blow.at_ns, began = time.time_ns(), time.monotonic()
    os.kill(blow.cell.pid, signal.SIGKILL)
    while time.monotonic() - began < BACK_S:
        now = next((cell for cell in fleet.of("cell") if cell.name == blow.cell.name), None)
        if now is not None and now.pid != blow.cell.pid and now.state == "ready":
            blow.back_s = time.monotonic() - began
            return
        time.sleep(0.02)


def measure_drain(folder: Path, options: Options) -> Finding:
    """Twice: the processes are replaced while calls come and go; then the machine is told to end."""
    overrides = {"calls": {"drain_s": DRAIN_S}}
    with (
        progress("drain", 2) as begin,
        options.fleet(folder, ECHO, options.calls, overrides) as target,
    ):
        begin("rolling restart")
        fleet, took = target.fleet, [0.0]

        def restart(_sipp: Sipp) -> None:
            began, old = time.monotonic(), {part.run for part in fleet.of("cell")}
            fleet.ask("restart", timeout_s=60)
            fleet.await_that(
                lambda status: not old & {child["run"] for child in status["children"] if child["state"] == "ready"},
                "fresh cells",
                FRESH_S,
                pause_s=0.25,
            )
            took[0] = time.monotonic() - began

        load = run.Load("echo", options.calls, RATE, 20.0, total=2 * options.calls, pattern=sound.clicks())
        restarted = run.run(target, folder / "restart", load, restart)
        run.await_nothing_left(target)
        left = target.left()
        begin("SIGTERM")
        load = run.Load("echo", options.calls, RATE, 8.0, pattern=sound.clicks())
        drained = run.run(target, folder / "drain", load, lambda _sipp: fleet.process_signal(signal.SIGTERM))
        code = fleet.stop(timeout_s=60)
    rows = [
        *_kept("all processes replaced under load", restarted),
        Row("... until all cells were fresh", f"{took[0]:.1f} s"),
        Row("... left over", f"{left.loads} at the edge, {left.calls} in cells, {left.limits} limits", "0"),
        *_kept("SIGTERM under load", drained),
        Row("... exit code", str(code), "0"),
    ]
    figures = {
        "restart": {"calls": restarted.calls.made, "failed": restarted.calls.failed, "cut": _cut(restarted)},
        "drain": {"calls": drained.calls.made, "failed": drained.calls.failed, "cut": _cut(drained), "code": code},
    }
    return Finding(rows, figures=figures)


def _cut(seen: Seen) -> int:
    return sum(call.cut for call in seen.whole.calls)


def _kept(what: str, seen: Seen) -> list[Row]:
    reasons = ", ".join(f"{name}: {count}" for name, count in seen.calls.failures.items())
    return [
        Row(
            f"{what}: calls dropped",
            f"{_cut(seen)} ({seen.calls.failed} failed for SIPp) of {seen.calls.made}",
            "0",
            reasons,
        ),
        Row("... longest gap that a call heard", f"{seen.whole.longest_gap_ms:.0f} ms"),
    ]
