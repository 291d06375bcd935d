"""SIPp as the callers of a load: many calls by one scenario, bounded in number and time, and what became of them.

Owns the command line and the reading of SIPp's own statistics. Refuses to know what the calls say: `rtp` does.
"""

from __future__ import annotations

import csv
import itertools
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from tests.harness.server import free_range

SCENARIO = Path(__file__).resolve().parents[1] / "scenarios/uac-load.xml"
FAILURES = {
    "FailedCannotSendMessage(C)": "could not send",
    "FailedMaxUDPRetrans(C)": "no answer to retransmissions",
    "FailedUnexpectedMessage(C)": "unexpected message",
    "FailedCallRejected(C)": "rejected",
    "FailedCmdNotSent(C)": "command not sent",
    "FailedRegexpDoesntMatch(C)": "answer without sound",
    "FailedOutboundCongestion(C)": "outbound congestion",
    "FailedTimeoutOnRecv(C)": "timeout",
    "FailedTimeoutOnSend(C)": "timeout on send",
}
"""SIPp's columns (its manual, "Statistics")."""


@dataclass(frozen=True, slots=True)
class Calls:
    """What became of the calls. setup_ms, bye_ms: INVITE to 200, BYE to 200, one figure a call in order of the answer.
    retransmissions: messages that SIPp had to send again."""

    made: int
    good: int
    failed: int
    failures: Mapping[str, int] = field(default_factory=dict)
    setup_ms: tuple[float, ...] = ()
    bye_ms: tuple[float, ...] = ()
    retransmissions: int = 0
    first_error: str = ""


class Sipp:
    """One SIPp process. Use as a context manager: leaving it ends the process.

    total: calls in all; at_once: at most so many at a time; rate: new ones a second; hold_s: how long each lasts.
    ports: local ports of the callers' sound, given to the calls in turn. limit_s: SIPp gives up after that.
    """

    def __init__(
        self,
        folder: Path,
        target: tuple[str, int],
        *,
        user: str,
        total: int,
        at_once: int,
        rate: float,
        hold_s: float,
        ports: Sequence[int],
        limit_s: float,
        host: str = "127.0.0.1",
        scenario: Path = SCENARIO,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._limit_s, self.total = folder, limit_s, total
        self.log = folder / "sipp.log"
        self.log.write_text("")
        self._stat, self._errors = folder / "stat.csv", folder / "errors.log"
        lines = folder / "ports.csv"
        lines.write_text("SEQUENTIAL\n" + "".join(f"{port}\n" for port in ports))
        port, _ = free_range(4)
        self._scenario = folder / scenario.name
        self._scenario.write_text(scenario.read_text())
        self._command = [
            *("sipp", "-sf", str(self._scenario), "-s", user, "-inf", str(lines)),
            *("-m", str(total), "-l", str(at_once), "-r", f"{rate:g}", "-d", str(round(hold_s * 1000))),
            *("-i", host, "-p", str(port), "-bind_local", "-ci", "127.0.0.1", "-cp", str(port + 2), "-mi", host),
            *("-nostdin", "-timeout", f"{limit_s:g}s", "-recv_timeout", "10s", "-default_behaviors", "all"),
            *("-trace_logs", "-log_file", str(self.log), "-trace_err", "-error_file", str(self._errors)),
            *("-trace_stat", "-stf", str(self._stat), "-fd", "1", "-trace_rtt", "-rtt_freq", "1"),
            f"{target[0]}:{target[1]}",
        ]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def up(self) -> int:
        """Calls that have been answered and are not over."""
        words = [line.split(" ", 1)[0] for line in self.log.read_text().splitlines()]
        return words.count("start") - words.count("end")

    def over(self) -> int:
        return sum(line.startswith("end") for line in self.log.read_text().splitlines())

    def wait(self) -> Calls:
        """Until all calls are over or the limit is reached."""
        assert self.process is not None
        self.process.wait(self._limit_s + 15)
        return self.calls()

    def calls(self) -> Calls:
        last = _last_line(self._stat)
        failures = {name: count for key, name in FAILURES.items() if (count := int(last.get(key, "0") or 0))}
        times = _response_times(self._folder, self._scenario.stem)
        errors = self._errors.read_text(errors="replace") if self._errors.exists() else ""
        return Calls(
            made=int(last.get("TotalCallCreated", "0") or 0),
            good=int(last.get("SuccessfulCall(C)", "0") or 0),
            failed=int(last.get("FailedCall(C)", "0") or 0),
            failures=failures,
            setup_ms=times.get("1", ()),
            bye_ms=times.get("2", ()),
            retransmissions=int(last.get("Retransmissions(C)", "0") or 0),
            first_error=errors[:400],
        )

    def __enter__(self) -> Sipp:
        self.process = subprocess.Popen(
            self._command,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self._folder / "stderr.log").open("wb"),
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def wait_for_calls(sipp: Sipp, count: int, limit_s: float) -> bool:
    """True once so many calls are up at a time; False when SIPp has ended or the time is over before."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline and sipp.running:
        if sipp.up() >= count:
            return True
        time.sleep(0.1)
    return False


def _last_line(file: Path) -> dict[str, str]:
    if not file.exists():
        return {}
    with file.open(newline="") as lines:
        rows = list(csv.reader(lines, delimiter=";"))
    if len(rows) < 2:
        return {}
    return dict(itertools.zip_longest(rows[0], rows[-1][: len(rows[0])], fillvalue=""))


def _response_times(folder: Path, name: str) -> dict[str, tuple[float, ...]]:
    """By the number of the stop watch (`rtd`)."""
    found: dict[str, list[float]] = {}
    for file in folder.glob(f"{name}_*_rtt.csv"):
        for line in file.read_text().splitlines()[1:]:
            fields = line.split(";")
            if len(fields) >= 3:
                found.setdefault(fields[2].strip(), []).append(float(fields[1]))
    return {watch: tuple(times) for watch, times in found.items()}
