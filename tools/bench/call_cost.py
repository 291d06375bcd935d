"""CPU of a call and memory of the server. CPU seconds of the process, less what it uses idle."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from tests.harness.phone import Phone
from tests.harness.server import ServerProcess
from tools.bench.plans import AGENT, ECHO
from tools.bench.report import Row

SECONDS = 20


def cost(server: ServerProcess, user: str, calls: int) -> float:
    """Percent of a core a call."""
    with contextlib.ExitStack() as stack:
        for _ in range(calls):
            phone = stack.enter_context(Phone(server.sip_port))
            assert phone.invite(user).code == 200
        time.sleep(3)
        began, used = time.monotonic(), server.cpu_s()
        time.sleep(SECONDS)
        return (server.cpu_s() - used) / (time.monotonic() - began) / calls * 100


def idle(server: ServerProcess) -> float:
    time.sleep(3)
    began, used = time.monotonic(), server.cpu_s()
    time.sleep(10)
    return (server.cpu_s() - used) / (time.monotonic() - began) * 100


def _each(figures: tuple[float, float]) -> str:
    return f"{figures[0]:.2f} % (1 call), {figures[1]:.2f} % (3 calls)"


def measure(folder: Path) -> Sequence[Row]:
    rows: list[Row] = []
    both_ways = f"{SECONDS} s, RTP both ways"
    with ServerProcess(folder / "echo", {"bench.yaml": ECHO}) as server:
        rows.append(Row("RSS of the server, no model loaded, idle", f"{server.rss_mb():.0f} MB", "<= 120 MB"))
        rows.append(Row("CPU idle, no call", f"{idle(server):.2f} % of a core"))
        figures = cost(server, "echo", 1), cost(server, "echo", 3)
        rows.append(Row("CPU a call, G.711 echo through the Python port", _each(figures), "<= 0.8 %", both_ways))
        rows.append(Row("RSS after these calls", f"{server.rss_mb():.0f} MB"))
    with ServerProcess(folder / "agent", {"bench.yaml": AGENT}) as server:
        figures = cost(server, "quiet", 1), cost(server, "quiet", 3)
        rows.append(Row("CPU a call, agent hears silence, VAD and recording on", _each(figures), "<= 2 %", both_ways))
        rows.append(Row("RSS with tiny.en, Piper, Silero (model's process beside it)", f"{server.rss_mb():.0f} MB"))
    return rows
