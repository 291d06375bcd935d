"""One load from beginning to end: calls by SIPp, their sound, and what both and the target showed meanwhile.

Owns the order of things. Refuses to know what is compared with what: the benches do.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tools.bench.load import rtp, usage, wire
from tools.bench.load.sipp import Calls, Sipp, wait_for_calls
from tools.bench.load.sound import Frames
from tools.bench.load.target import Target, line_ports
from tools.bench.load.usage import Usage
from tools.bench.load.wire import Recording, Wire

CALLS_A_SOCKET = 64
SETTLE_S = 2.0
END_S = 25.0
"""Beyond the calls' own time: answers to the last BYEs, retransmissions."""


@dataclass(frozen=True, slots=True)
class Load:
    """user: whom they call. calls: at a time; total: in all (0: as many as at a time). rate: new ones a second.
    steady_s: how long all of them are up and are measured. pattern: what they say; None: no sound is sent."""

    user: str
    calls: int
    rate: float
    steady_s: float
    total: int = 0
    pattern: Frames | None = None
    hold_s: float = 0.0
    """How long a call lasts; 0: long enough for the steady time."""

    @property
    def lasts_s(self) -> float:
        return self.hold_s or self.calls / self.rate + SETTLE_S + self.steady_s + 1.0

    @property
    def made(self) -> int:
        return self.total or self.calls

    @property
    def limit_s(self) -> float:
        """SIPp ends by itself after that."""
        rounds = -(-self.made // self.calls)
        return self.made / self.rate + rounds * (self.lasts_s + 2) + END_S


@dataclass(frozen=True, slots=True)
class Seen:
    """steady: whether all calls were up at a time. wire: of the steady time; whole: of the whole life of every call.
    generator: CPU of SIPp and of the sound. memory_mb: PSS of each process of the target by kind while all were up.
    redis_per_s, rows_per_s: during the steady time. window_ns: the steady time (CLOCK_REALTIME)."""

    load: Load
    calls: Calls
    steady: bool
    wire: Wire
    whole: Wire
    usage: Usage
    generator: Usage
    memory_mb: dict[str, list[float]] = field(default_factory=dict)
    redis_per_s: float = 0.0
    rows_per_s: float = 0.0
    window_ns: tuple[int, int] = (0, 0)
    recording: Recording | None = None


Meanwhile = Callable[[Sipp], None]
"""What a bench does to the target while all calls are up; it takes as long as it takes."""


def run(target: Target, folder: Path, load: Load, meanwhile: Meanwhile | None = None) -> Seen:
    """Blocks until the last call is over, at most load.limit_s. The target must have room for the calls."""
    folder.mkdir(parents=True, exist_ok=True)
    ports = line_ports(-(-load.calls // CALLS_A_SOCKET))
    sipp = Sipp(
        folder,
        target.address,
        user=load.user,
        total=load.made,
        at_once=load.calls,
        rate=load.rate,
        hold_s=load.lasts_s,
        ports=ports,
        limit_s=load.limit_s,
    )
    with _sound(folder, sipp.log, load.pattern, ports) as sound, sipp:
        steady = wait_for_calls(sipp, load.calls, load.calls / load.rate + 15)
        time.sleep(SETTLE_S)
        generators = {"sipp": [sipp.pid], "sound": [sound.pid]}
        before, ours = usage.snapshot(target.roots()), usage.snapshot(generators)
        asked, rows = target.redis_commands(), target.rows_written()
        from_ns = time.time_ns()
        if meanwhile is not None:
            meanwhile(sipp)
        time.sleep(max(0.0, load.steady_s - (time.time_ns() - from_ns) / 1e9))
        to_ns = time.time_ns()
        after, ours_after = usage.snapshot(target.roots()), usage.snapshot(generators)
        seconds = (to_ns - from_ns) / 1e9
        asked, rows = target.redis_commands() - asked, target.rows_written() - rows
        memory = usage.memory_mb(after)
        calls = sipp.wait()
    recording = rtp.load(folder / "sound.npz")
    return Seen(
        load=load,
        calls=calls,
        steady=steady,
        wire=wire.judge(recording, from_ns, to_ns),
        whole=wire.judge(recording),
        usage=usage.between(before, after),
        generator=usage.between(ours, ours_after),
        memory_mb=memory,
        redis_per_s=asked / seconds,
        rows_per_s=rows / seconds,
        window_ns=(from_ns, to_ns),
        recording=recording,
    )


def idle(target: Target, seconds: float = 5.0) -> tuple[Usage, dict[str, list[float]], float]:
    """CPU, memory by kind and Redis operations a second of a target without calls."""
    time.sleep(SETTLE_S)
    before, asked = usage.snapshot(target.roots()), target.redis_commands()
    time.sleep(seconds)
    after, asked = usage.snapshot(target.roots()), target.redis_commands() - asked
    return usage.between(before, after), usage.memory_mb(after), asked / seconds


def await_nothing_left(target: Target, limit_s: float = 15.0) -> None:
    """Returns when no call lives any more, or after limit_s: `target.left()` then tells what is left."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline and not target.left().nothing:
        time.sleep(0.5)


@contextlib.contextmanager
def _sound(folder: Path, log: Path, pattern: Frames | None, ports: Sequence[int]) -> Iterator[subprocess.Popen[bytes]]:
    """The process that speaks and hears; when the block ends, what it saw lies in `sound.npz`."""
    silent = np.zeros((0, 160), np.uint8)
    np.save(folder / "pattern.npy", silent if pattern is None else pattern)
    out = folder / "sound.npz"
    command = [sys.executable, "-m", "tools.bench.load.rtp", str(log), str(out), str(folder / "pattern.npy")]
    process = subprocess.Popen([*command, "127.0.0.1", *map(str, ports)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        with process.stdout as said:
            assert said.readline() == b"ready\n", "the sound process did not start"
        yield process
    finally:
        process.terminate()
        process.wait(60)
