"""New calls a second against failures and set-up time; and that nothing is left over afterwards.

Short calls whose sound nobody listens to: what is measured is signalling. The knee is the highest rate without a
failure and with a p99 within the target.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.bench import plots
from tools.bench.fleet_options import Options
from tools.bench.fleet_point import own
from tools.bench.load import run, usage
from tools.bench.load.sipp import Calls, Sipp
from tools.bench.load.target import Left, Target, line_ports
from tools.bench.plans import ECHO
from tools.bench.report import Figures, Finding, Row, Table, percentile, progress

HOLD_S = 0.5
TARGET_MS = 50.0
ROOM = 200
"""Calls that the target can hold: a rate of 150 needs half of it."""
NOTE = f"Calls of {HOLD_S:g} s: INVITE, 200, ACK, BYE, 200. Set-up time is from the INVITE to the 200."


@dataclass(frozen=True, slots=True)
class Rate:
    """One rate. took_s: from the first INVITE to the last answer. cpu: percent of a core by kind."""

    rate: int
    made: int
    failed: int
    stuck: int
    setup_p50_ms: float
    setup_p99_ms: float
    setup_max_ms: float
    bye_p99_ms: float
    retransmissions: int
    took_s: float
    cpu: dict[str, float]
    cpu_total: float
    redis_per_call: float
    rows_per_call: float
    generator: float
    left: Left
    failures: dict[str, int]

    @property
    def good(self) -> bool:
        return not self.failed and not self.stuck and self.setup_p99_ms <= TARGET_MS

    def as_figures(self) -> Figures:
        return asdict(self)


def measure(folder: Path, options: Options) -> Finding:
    found: list[Rate] = []
    with (
        progress("calls a second", len(options.rates) + 1) as begin,
        options.target(folder, ECHO, ROOM) as target,
    ):
        for rate in options.rates:
            begin(f"{rate} a second")
            found.append(at_rate(target, folder / f"rate-{rate}", rate, options.rate_s))
        begin(f"{options.long_rate} a second for {options.long_rate_s:g} s")
        lasting = at_rate(target, folder / "long", options.long_rate, options.long_rate_s)
    knee = max((each.rate for each in found if each.good), default=0)
    left = lasting.left
    rows = [
        Row(
            f"{lasting.rate} calls a second for {options.long_rate_s:g} s: failed, stuck",
            f"{lasting.failed}, {lasting.stuck} of {lasting.made}",
            "0, 0",
            ", ".join(f"{name}: {count}" for name, count in lasting.failures.items()),
        ),
        Row("... INVITE to 200", f"p50 {lasting.setup_p50_ms:.1f}, p99 {lasting.setup_p99_ms:.1f} ms", "p99 <= 50 ms"),
        Row("... left over", f"{left.loads} at the edge, {left.calls} in cells, {left.limits} limits", "0"),
        Row(
            "the knee",
            f"{knee} calls a second",
            "",
            f"the highest of {', '.join(map(str, options.rates))} that was good",
        ),
    ]
    return Finding(
        rows,
        [_table([*found, lasting])],
        _plots(found, options.plots) if options.plots else {},
        {"rates": [each.as_figures() for each in found], "long": lasting.as_figures(), "knee": knee},
        NOTE,
    )


def at_rate(target: Target, folder: Path, rate: int, seconds: float) -> Rate:
    with _deaf(line_ports(1)[0]) as port:
        before, asked, rows = usage.snapshot(target.roots()), target.redis_commands(), target.rows_written()
        began = time.monotonic()
        with Sipp(
            folder,
            target.address,
            user="quick",
            total=round(rate * seconds),
            at_once=ROOM,
            rate=rate,
            hold_s=HOLD_S,
            ports=[port],
            limit_s=seconds + run.END_S,
        ) as sipp:
            ours = usage.snapshot({"sipp": [sipp.pid]})
            time.sleep(seconds)
            generator = usage.between(ours, usage.snapshot({"sipp": [sipp.pid]}))
            during = usage.between(before, usage.snapshot(target.roots()))
            calls = sipp.wait()
        took_s = time.monotonic() - began
    run.await_nothing_left(target)
    asked, rows = target.redis_commands() - asked, target.rows_written() - rows
    return _rate(rate, calls, took_s, during, generator, asked, rows, target.left())


def _rate(
    rate: int,
    calls: Calls,
    took_s: float,
    during: usage.Usage,
    generator: usage.Usage,
    asked: int,
    rows: int,
    left: Left,
) -> Rate:
    setups, byes, made = calls.setup_ms or (0.0,), calls.bye_ms or (0.0,), max(1, calls.made)
    return Rate(
        rate=rate,
        made=calls.made,
        failed=calls.failed,
        stuck=len(calls.stuck),
        setup_p50_ms=percentile(setups, 0.5),
        setup_p99_ms=percentile(setups, 0.99),
        setup_max_ms=max(setups),
        bye_p99_ms=percentile(byes, 0.99),
        retransmissions=calls.retransmissions,
        took_s=took_s,
        cpu=dict(during.percent),
        cpu_total=own(during.percent),
        redis_per_call=asked / made,
        rows_per_call=rows / made,
        generator=generator.total,
        left=left,
        failures=dict(calls.failures),
    )


@contextlib.contextmanager
def _deaf(port: int) -> Iterator[int]:
    """Sound that comes to this port, and RTCP to the next, is thrown away by the kernel for want of room: at no cost,
    and nobody is told that the port is closed."""
    with contextlib.ExitStack() as stack:
        for number in (port, port + 1):
            deaf = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            deaf.bind(("127.0.0.1", number))
        yield port


def _table(found: Sequence[Rate]) -> Table:
    head = (
        "calls a second",
        "calls",
        "failed",
        "stuck",
        "INVITE to 200 p50 / p99 / max, ms",
        "BYE p99, ms",
        "CPU, % of a core",
        "Redis a call",
        "rows a call",
        "SIPp, % of a core",
    )
    return Table(
        head,
        [
            (
                str(each.rate),
                str(each.made),
                str(each.failed),
                str(each.stuck),
                f"{each.setup_p50_ms:.1f} / {each.setup_p99_ms:.1f} / {each.setup_max_ms:.0f}",
                f"{each.bye_p99_ms:.1f}",
                f"{each.cpu_total:.0f}",
                f"{each.redis_per_call:.1f}",
                f"{each.rows_per_call:.1f}",
                f"{each.generator:.1f}",
            )
            for each in found
        ],
    )


def _plots(found: Sequence[Rate], folder: Path) -> dict[str, Path]:
    rates = [float(each.rate) for each in found]
    return {
        "Set-up time by calls a second": plots.lines(
            folder / "fleet-setup.png",
            {
                "p50": (rates, [each.setup_p50_ms for each in found]),
                "p99": (rates, [each.setup_p99_ms for each in found]),
            },
            x="new calls a second",
            y="INVITE to 200, ms",
            limit=("p99 must be below at 100", TARGET_MS),
        )
    }
