"""What a bridge of two G.711 legs within PJMEDIA costs, how late its sound is, and how fast transfers are.

The cell is a process of its own (`bridge_cell.py`), so that only its CPU is counted. It answers every call and joins
the calls in pairs.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tests.harness.phone import ULAW_SILENCE, Phone
from tools.bench.echo_delay import CLICK_AT, SAMPLE_NS, click
from tools.bench.report import Row, spread

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 20
PAIRS, CLICKS, GAP_PACKETS = 10, 8, 15
LEGS = 4


class CellProcess:
    """The cell as a child; `with` ends it."""

    def __enter__(self) -> CellProcess:
        command = [sys.executable, "-m", "tools.bench.bridge_cell"]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        said = next(line for line in self._process.stdout if line.startswith("ready "))  # behind the log
        self.sip_port = int(said.split()[1])
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()  # its sign to stop
        self._process.wait(20)

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def load(self, seconds: float) -> float:
        """Percent of a core."""
        began, used = time.monotonic(), self.cpu_s()
        time.sleep(seconds)
        return (self.cpu_s() - used) / (time.monotonic() - began) * 100


@contextlib.contextmanager
def talking(cell: CellProcess, count: int) -> Iterator[list[Phone]]:
    with contextlib.ExitStack() as stack:
        phones = [stack.enter_context(Phone(cell.sip_port)) for _ in range(count)]
        for phone in phones:
            assert phone.invite("join").code == 200
        time.sleep(1.5)
        yield phones


def delays(speaker: Phone, listener: Phone) -> list[float]:
    """Milliseconds from a click's sending by one phone to its arrival at the other, one figure a click that arrived."""
    found: list[float] = []
    for _ in range(CLICKS):
        first, sent_before = len(listener.received), len(speaker.sent_ns)
        speaker.say(click() + ULAW_SILENCE * (GAP_PACKETS - 1))
        time.sleep(GAP_PACKETS * 0.02)
        for packet in listener.received[first:]:
            peak = int(np.argmax(np.abs(packet.samples.astype(np.int32))))
            if abs(int(packet.samples[peak])) > 8000:
                sent_ns = next((at for at in speaker.sent_ns[sent_before:] if at < packet.at_ns), None)
                if sent_ns is not None:
                    found.append((packet.at_ns - sent_ns + (peak - CLICK_AT) * SAMPLE_NS) / 1e6)
                break
    return found


def measure(_folder: Path) -> Sequence[Row]:
    with CellProcess() as cell:
        time.sleep(2)
        rest = cell.load(10)
        with talking(cell, LEGS):
            busy = cell.load(SECONDS)
        a_leg = (busy - rest) / LEGS
        late: list[float] = []
        for _ in range(PAIRS):
            with talking(cell, 2) as (one, other):
                late += delays(one, other) + delays(other, one)
    return [
        Row(
            "CPU a leg of a bridged G.711 call, RTP both ways",
            f"{a_leg:.2f} % of a core",
            "<= 0.5 %",
            f"{LEGS // 2} bridges, {SECONDS} s; above idle",
        ),
        Row(
            "RTP one-way delay of the bridge",
            spread(late, digits=1),
            "p50 <= 25 ms",
            f"{PAIRS} bridges, {CLICKS} clicks each way",
        ),
    ]
