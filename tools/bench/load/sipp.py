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
    """What became of the calls. setup_ms, bye_ms: INVITE to 200, BYE to 200, one figure a call that got so far.
    stuck: numbers of calls that were answered and whose end was not. retransmissions: messages sent again."""

    made: int
    good: int
    failed: int
    failures: Mapping[str, int] = field(default_factory=dict)
    setup_ms: tuple[float, ...] = ()
    bye_ms: tuple[float, ...] = ()
    stuck: tuple[int, ...] = ()
    retransmissions: int = 0
    first_error: str = ""


@dataclass(frozen=True, slots=True)
class Course:
    """The scenario's log: word -> call -> when (seconds since the epoch). Words: `invite`, `start` (200 received),
    `end` (BYE sent), `over` (200 of the BYE)."""

    moments: Mapping[str, Mapping[int, float]]

    @classmethod
    def read(cls, text: str) -> Course:
        """A last line that is still being written is left out."""
        found: dict[str, dict[int, float]] = {word: {} for word in ("invite", "start", "end", "over")}
        for line in text[: text.rfind("\n") + 1].splitlines():
            word, call, *rest = line.split()
            found[word][int(call)] = float(rest[-1])
        return cls(found)

    @property
    def up(self) -> int:
        """Answered and not yet at their end."""
        return len(self.moments["start"].keys() - self.moments["end"].keys())

    def between_ms(self, first: str, then: str) -> tuple[float, ...]:
        begun = self.moments[first]
        return tuple((at_s - begun[call]) * 1000 for call, at_s in self.moments[then].items() if call in begun)

    @property
    def stuck(self) -> tuple[int, ...]:
        return tuple(sorted(self.moments["start"].keys() - self.moments["over"].keys()))


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
            *("-trace_stat", "-stf", str(self._stat), "-fd", "1"),
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

    def course(self) -> Course:
        return Course.read(self.log.read_text())

    def wait(self) -> Calls:
        """Until all calls are over or the limit is reached."""
        assert self.process is not None
        self.process.wait(self._limit_s + 15)
        return self.calls()

    def calls(self) -> Calls:
        last = _last_line(self._stat)
        failures = {name: count for key, name in FAILURES.items() if (count := int(last.get(key, "0") or 0))}
        course = self.course()
        errors = self._errors.read_text(errors="replace") if self._errors.exists() else ""
        return Calls(
            made=int(last.get("TotalCallCreated", "0") or 0),
            good=int(last.get("SuccessfulCall(C)", "0") or 0),
            failed=int(last.get("FailedCall(C)", "0") or 0),
            failures=failures,
            setup_ms=course.between_ms("invite", "start"),
            bye_ms=course.between_ms("end", "over"),
            stuck=course.stuck,
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
        if sipp.course().up >= count:
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
