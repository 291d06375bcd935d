"""Twilio streams that are echoed in real time: by this server, by its 16 kHz pipeline, and by Pipecat's echo with its
Twilio serializer, one after another by the same generator on the same cores.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from sipserver.bus.once import MemoryOnce
from sipserver.gate.settings import GateSettings
from sipserver.gate.tokens import Claims, Tokens
from sipserver.streams import twiml
from tests.harness.server import ROOT, ServerProcess
from tests.servers.pipecat import pipecat_echo
from tools.bench.load import usage
from tools.bench.load.twilio_streams import call_sid
from tools.bench.report import Row

STREAMS = int(os.environ.get("BENCH_STREAMS", "300"))
SECONDS = float(os.environ.get("BENCH_STREAM_SECONDS", "20"))
PROCESSES = 2

PEER_STREAMS = (10, 20, 30)
"""Pipecat in one process; beyond that it is saturated."""

ROUND_TRIP_MS = 60
CHEAPER = 3

PLAN = """
tenant: bench
flows:
  echo: [answer, {echo: {max_s: 600}}]
  recorded: [answer, record, {echo: {max_s: 600}}]
routes:
  - match: {to: echo}
    flow: echo
  - match: {to: recorded}
    flow: recorded
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """percent: CPU of the server, of one core. What the rest is stands in `load.twilio_streams`."""

    streams: int
    lost: int
    sent: int
    back: int
    loud_sent: int
    loud_back: int
    clears: int
    p50_ms: float
    p95_ms: float
    max_ms: float
    late_p99_ms: float
    percent: float
    generator: float
    memory_mb: float

    @property
    def each(self) -> float:
        """% of a core a stream."""
        return self.percent / self.streams

    @property
    def dropped(self) -> int:
        """Loud frames that never came back."""
        return self.loud_sent - self.loud_back

    @property
    def holds(self) -> bool:
        return not self.lost and self.dropped == 0 and self.p95_ms < 500


def play(roots: usage.Roots, ports: Sequence[int], path: str, parameters: Sequence[dict[str, str]]) -> Seen:
    """One load from beginning to end."""
    command = [sys.executable, "-m", "tools.bench.load.twilio_streams", "127.0.0.1", ",".join(map(str, ports))]
    generator = subprocess.Popen(
        [*command, path, str(SECONDS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert generator.stdin is not None
    assert generator.stdout is not None
    try:
        generator.stdin.write("".join(json.dumps(each) + "\n" for each in parameters))
        generator.stdin.close()
        assert generator.stdout.readline() == "steady\n", "the streams did not come up"
        all_roots = {**roots, "generator": [generator.pid]}
        before = usage.snapshot(all_roots)
        assert generator.stdout.readline() == "over\n"
        after = usage.snapshot(all_roots)
        used = usage.between(before, after)
        memory = usage.memory_mb(usage.snapshot(roots))
        told = json.loads(generator.stdout.readline())
    finally:
        generator.stdout.close()
        try:
            generator.wait(10)
        except subprocess.TimeoutExpired:
            generator.kill()
            generator.wait(10)
    assert told["back"], "nothing came back: no stream was taken"
    percent = sum(share for kind, share in used.percent.items() if kind != "generator")
    return Seen(
        **told,
        percent=percent,
        generator=used.percent.get("generator", 0.0),
        memory_mb=sum(sum(each) for each in memory.values()),
    )


def ours(folder: Path, flow: str, count: int, processes: int = PROCESSES) -> Seen:
    """processes: servers beside each other, as a machine has gateways; streams take turns."""
    settings = GateSettings()
    os.environ[settings.secret_env] = secrets.token_hex(32)
    os.environ["BENCH_TWILIO_TOKEN"] = "not a real one"
    tokens = Tokens(os.environ[settings.secret_env].encode(), MemoryOnce())
    calls = (
        Claims("twilio", to=flow, from_user="caller", trunk="bench", serial=call_sid(each + 1)) for each in range(count)
    )
    parameters = [{twiml.TOKEN: tokens.issue(claims, lives_s=600)} for claims in calls]
    overrides = {
        "gate": {"opens_per_s": 10_000},
        "streams": {
            "twilio": [
                {"name": "bench", "account_sid": "AC" + "0" * 32, "auth_token_env": "BENCH_TWILIO_TOKEN", "lead_ms": 0}
            ],
            "record_messages": False,
        },
    }
    try:
        with ExitStack() as stack:
            servers = [
                stack.enter_context(ServerProcess(folder / str(number), {"bench.yaml": PLAN}, overrides))
                for number in range(processes)
            ]
            roots = {"server": [server.pid for server in servers]}
            return play(roots, [server.http_port for server in servers], "/ws/twilio/bench", parameters)
    finally:
        del os.environ[settings.secret_env], os.environ["BENCH_TWILIO_TOKEN"]


def pipecat(folder: Path, count: int) -> Seen:
    folder.mkdir(parents=True, exist_ok=True)
    with pipecat_echo(folder / "pipecat.log") as (port, pid):
        return play({"pipecat": [pid]}, [port], "/ws", [{}] * count)


def measure(folder: Path) -> Sequence[Row]:
    wire = ours(folder / "echo", "echo", STREAMS)
    pipeline = ours(folder / "recorded", "recorded", STREAMS)
    peers = [pipecat(folder / f"pipecat-{count}", count) for count in PEER_STREAMS]
    held = [peer for peer in peers if peer.holds]
    best = min((peer.each for peer in held), default=min(peer.each for peer in peers))
    rows = [*_rows("Echo", wire, best), *_rows("Echo while it is recorded", pipeline, best)]
    for peer in peers:
        rows += _rows("Pipecat's echo", peer, None)
    most = max((peer.streams for peer in held), default=0)
    rows.append(Row("Streams that one Pipecat process holds", f"{most} of {', '.join(map(str, PEER_STREAMS))} tried"))
    return rows


def _rows(what: str, seen: Seen, peer: float | None) -> Sequence[Row]:
    name = f"{what}, {seen.streams} streams"
    is_ours = peer is not None
    beside = f"generator {seen.generator:.0f} % of a core, its sending p99 {seen.late_p99_ms:.1f} ms late"
    share = f"{seen.each:.2f} % of a core"
    times = f", {peer / seen.each:.1f} times less than Pipecat's" if peer is not None else ""
    trips = f"{seen.p50_ms:.0f} ms / {seen.p95_ms:.0f} ms / {seen.max_ms:.0f} ms"
    lost = f"{seen.dropped} of {seen.loud_sent}, {seen.sent - seen.back} of {seen.sent} frames, {seen.lost} streams"
    return (
        Row(
            f"{name}: CPU a stream",
            share + times,
            f"{CHEAPER} times less than Pipecat's" if is_ours else "",
            f"{seen.percent:.0f} % in all, {seen.memory_mb:.0f} MB; {beside}",
        ),
        Row(
            f"{name}: round trip p50 / p95 / max",
            trips,
            f"p95 <= {ROUND_TRIP_MS} ms" if is_ours else "",
            "lead_ms: 0" if is_ours else "",
        ),
        Row(f"{name}: loud frames lost, frames not back, streams lost", lost, "0" if is_ours else ""),
    )
