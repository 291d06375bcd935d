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


def cost(server: ServerProcess, user: str, calls: int, idle_percent: float) -> float:
    """Percent of a core a call, above what the server uses idle."""
    with contextlib.ExitStack() as stack:
        for _ in range(calls):
            phone = stack.enter_context(Phone(server.sip_port))
            assert phone.invite(user).code == 200
        time.sleep(3)
        began, used = time.monotonic(), server.cpu_s()
        time.sleep(SECONDS)
        return ((server.cpu_s() - used) / (time.monotonic() - began) * 100 - idle_percent) / calls


def idle(server: ServerProcess) -> float:
    time.sleep(3)
    began, used = time.monotonic(), server.cpu_s()
    time.sleep(10)
    return (server.cpu_s() - used) / (time.monotonic() - began) * 100


def _each(figures: tuple[float, float]) -> str:
    return f"{figures[0]:.2f} % (1 call), {figures[1]:.2f} % (3 calls)"


def measure(folder: Path) -> Sequence[Row]:
    rows: list[Row] = []
    how = f"{SECONDS} s, RTP both ways; above idle"
    with ServerProcess(folder / "echo", {"bench.yaml": ECHO}) as server:
        rows.append(Row("RSS of the server, no model loaded, idle", f"{server.rss_mb():.0f} MB", "<= 120 MB"))
        rest = idle(server)
        rows.append(Row("CPU idle, no call", f"{rest:.2f} % of a core"))
        figures = cost(server, "echo", 1, rest), cost(server, "echo", 3, rest)
        rows.append(Row("CPU a call, G.711 echo through the Python port", _each(figures), "<= 0.8 %", how))
        rows.append(Row("RSS after these calls", f"{server.rss_mb():.0f} MB"))
    with ServerProcess(folder / "agent", {"bench.yaml": AGENT}) as server:
        rest = idle(server)
        figures = cost(server, "quiet", 1, rest), cost(server, "quiet", 3, rest)
        rows.append(Row("CPU a call, agent hears silence, VAD and recording on", _each(figures), "<= 2 %", how))
        rows.append(Row("RSS with tiny.en, Piper, Silero (model's process beside it)", f"{server.rss_mb():.0f} MB"))
    return rows
