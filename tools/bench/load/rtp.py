"""The sound of all calls of a load, in a process of its own: `python -m tools.bench.load.rtp LOG OUT PATTERN PORT...`.

It reads in SIPp's log where the server listens for each call (`start CALL PORT HOST PORT`) and when its caller hangs up
(`end CALL`), sends every call a frame each 20 ms, and keeps the number, time stamp and arrival of every packet that
comes back. On SIGTERM, or when nothing writes the log any more, it writes what it saw (`wire.Recording`) to OUT.
Owns the pace. Refuses to judge (`wire`).

The calls are spread over the 20 ms in GROUPS, as real callers are, and share a few sockets.
"""

from __future__ import annotations

import signal
import socket
import sys
import time
from pathlib import Path

import numpy as np

from tools.bench.load import mmsg
from tools.bench.load.sound import FRAME, Frames, click_places
from tools.bench.load.wire import Arrivals, Recording

GROUPS = 4
TICK_NS = 20_000_000 // GROUPS
MOST_CALLS = 20_000
RECEIVE = 512
HEAD = 12
PCMA = 8


class Mouths:
    """Who speaks now, to whom, and where in the pattern. Arrays by call number."""

    def __init__(self, pattern: Frames) -> None:
        self.pattern = pattern
        self.speaking = np.zeros(MOST_CALLS, np.bool_)
        self.socket = np.zeros(MOST_CALLS, np.int16)
        self.peers = np.zeros(MOST_CALLS, mmsg.ADDRESS)
        self.peers["family"] = socket.AF_INET
        self.frame = np.zeros(MOST_CALLS, np.int64)
        self.first = np.random.default_rng(1).integers(0, max(1, len(pattern)), MOST_CALLS)
        self.started_ns = np.zeros(MOST_CALLS, np.int64)
        self.ended_ns = np.zeros(MOST_CALLS, np.int64)

    def start(self, call: int, line: int, host: str, port: int) -> None:
        self.socket[call] = line
        self.peers["host"][call] = int.from_bytes(socket.inet_aton(host), "big")
        self.peers["port"][call] = port
        self.started_ns[call] = time.time_ns()
        self.speaking[call] = True

    def end(self, call: int) -> None:
        if self.speaking[call]:
            self.speaking[call] = False
            self.ended_ns[call] = time.time_ns()


class Generator:
    """One thread: `turn` every TICK_NS."""

    def __init__(self, log: Path, pattern: Frames, host: str, ports: list[int]) -> None:
        self._mouths = Mouths(pattern)
        self._ports = ports
        self._sockets = [mmsg.endpoint(host, port) for port in ports]
        self._control = [mmsg.endpoint(host, port + 1) for port in ports]
        """RTCP: taken and thrown away, so that nobody is told that it is not wanted."""
        self._out = mmsg.Batch(MOST_CALLS // GROUPS, HEAD + FRAME)
        self._in = mmsg.Batch(RECEIVE, HEAD + FRAME)
        self._who = np.full((len(ports), 65_536), -1, np.int32)
        self._log = log.open("r")
        self._rest = ""
        self._arrivals: list[np.ndarray[tuple[int, int], np.dtype[np.int64]]] = []
        self._clicks: list[np.ndarray[tuple[int, int], np.dtype[np.int64]]] = []
        self._sent = self._strays = 0
        self._head = np.zeros((1, HEAD), np.uint8)

    def turn(self, group: int) -> None:
        if group == 0:
            self._read_log()
        self._speak(group)
        self._hear()

    def _read_log(self) -> None:
        *lines, self._rest = (self._rest + self._log.read()).split("\n")
        for line in lines:
            match line.split():
                case ["start", call, own, host, port, *_]:
                    index = self._ports.index(int(own))
                    self._mouths.start(int(call), index, host, int(port))
                    self._who[index, int(port)] = int(call)
                case ["end", call, *_]:
                    self._mouths.end(int(call))
        for endpoint in self._control:
            while self._in.receive(endpoint):
                pass

    def _speak(self, group: int) -> None:
        mouths = self._mouths
        if not len(mouths.pattern):  # callers that only listen
            return
        chosen = np.flatnonzero(mouths.speaking[group::GROUPS]) * GROUPS + group
        for index, endpoint in enumerate(self._sockets):
            calls = chosen[mouths.socket[chosen] == index]
            if not len(calls):
                continue
            place = (mouths.first[calls] + mouths.frame[calls]) % len(mouths.pattern)
            packets = self._out.payload[: len(calls)]
            packets[:, 0], packets[:, 1] = 0x80, PCMA
            packets[:, 2:4] = (mouths.frame[calls] & 0xFFFF).astype(">u2").view(np.uint8).reshape(-1, 2)
            packets[:, 4:8] = (mouths.frame[calls] * FRAME & 0xFFFFFFFF).astype(">u4").view(np.uint8).reshape(-1, 4)
            packets[:, 8:12] = (calls + 0x51_0000).astype(">u4").view(np.uint8).reshape(-1, 4)
            packets[:, HEAD:] = mouths.pattern[place]
            self._out.addresses[: len(calls)] = mouths.peers[calls]
            now_ns = time.time_ns()
            self._sent += self._out.send(endpoint, len(calls))
            clicking = calls[place == 0]
            self._clicks.append(np.stack([clicking, np.full(len(clicking), now_ns)], axis=1))
            mouths.frame[calls] += 1

    def _hear(self) -> None:
        for index, endpoint in enumerate(self._sockets):
            while count := self._in.receive(endpoint):
                packets = self._in.payload[:count]
                calls = self._who[index, self._in.addresses["port"][:count]]
                known = (calls >= 0) & (self._in.lengths(count) >= HEAD)
                self._strays += count - int(np.count_nonzero(known))
                packets = packets[known]
                seen = np.empty((len(packets), 5), np.int64)
                seen[:, 0] = calls[known]
                seen[:, 1] = np.ascontiguousarray(packets[:, 2:4]).view(">u2")[:, 0]
                seen[:, 2] = np.ascontiguousarray(packets[:, 4:8]).view(">u4")[:, 0]
                seen[:, 3] = self._in.stamps(count)[known]
                seen[:, 4] = click_places(packets[:, HEAD:])
                self._arrivals.append(seen)
                if count < RECEIVE:
                    break

    def recording(self) -> Recording:
        """All of it; the generator is of no use afterwards."""
        seen = np.concatenate(self._arrivals) if self._arrivals else np.zeros((0, 5), np.int64)
        clicks = np.concatenate(self._clicks) if self._clicks else np.zeros((0, 2), np.int64)
        most = max(int(np.max(np.flatnonzero(self._mouths.started_ns), initial=-1)) + 1, 1)
        inodes = {endpoint.getsockname()[1] for endpoint in self._sockets}
        columns = [np.ascontiguousarray(seen[:, column]) for column in range(5)]
        return Recording(
            Arrivals(*columns),
            self._mouths.started_ns[:most],
            self._mouths.ended_ns[:most],
            np.ascontiguousarray(clicks[:, 0]),
            np.ascontiguousarray(clicks[:, 1]),
            self._sent,
            self._strays,
            sum(drops(port) for port in inodes),
        )


def drops(port: int) -> int:
    """Packets that the kernel threw away for want of room in the socket of this UDP port (proc_net_udp)."""
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].partition(":")[2], 16) == port:
            return int(fields[-1])
    return 0


def save(recording: Recording, file: Path) -> None:
    arrivals = recording.arrivals
    np.savez(
        file,
        seen=np.stack([arrivals.call, arrivals.sequence, arrivals.stamp, arrivals.at_ns, arrivals.click]),
        started_ns=recording.started_ns,
        ended_ns=recording.ended_ns,
        clicks=np.stack([recording.click_call, recording.click_ns]),
        counts=np.array([recording.sent, recording.strays, recording.generator_drops]),
    )


def load(file: Path) -> Recording:
    with np.load(file) as kept:
        sent, strays, dropped = (int(count) for count in kept["counts"])
        return Recording(
            Arrivals(*kept["seen"]),
            kept["started_ns"],
            kept["ended_ns"],
            kept["clicks"][0],
            kept["clicks"][1],
            sent,
            strays,
            dropped,
        )


def main(arguments: list[str]) -> int:
    log, out, pattern, host, *ports = arguments
    over = False

    def stop(*_: object) -> None:
        nonlocal over
        over = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    generator = Generator(Path(log), np.load(pattern), host, [int(port) for port in ports])
    print("ready", flush=True)
    due_ns, group = time.monotonic_ns(), 0
    while not over:
        due_ns += TICK_NS
        wait_ns = due_ns - time.monotonic_ns()
        if wait_ns > 0:
            time.sleep(wait_ns / 1e9)
        generator.turn(group)
        group = (group + 1) % GROUPS
    save(generator.recording(), Path(out))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
