"""INVITE to 200, one call at a time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from tests.harness.phone import Phone
from tests.harness.server import ServerProcess
from tools.bench.plans import ECHO
from tools.bench.report import Row, percentile

CALLS_A_SECOND = 50
"""A process takes 100 new calls within 0.6 s and refuses what comes faster (sip/handles.py)."""


def measure(folder: Path) -> Sequence[Row]:
    times: list[float] = []
    with ServerProcess(folder, {"bench.yaml": ECHO}) as server, Phone(server.sip_port) as phone:
        began_s = time.monotonic()
        for number in range(200):
            time.sleep(max(0.0, began_s + number / CALLS_A_SECOND - time.monotonic()))
            answer = phone.invite("quick")
            assert answer.code == 200, answer.text
            times.append((answer.at_ns - phone.invited_ns) / 1e6)
            phone.bye()
    return [
        Row(
            "INVITE to 200, one call at a time",
            f"p50 {statistics.median(times):.1f} ms, p99 {percentile(times, 0.99):.1f} ms (n={len(times)})",
            "p50 <= 10, p99 <= 40 ms",
            "200 calls, 50 a second, route `quick`",
        )
    ]
