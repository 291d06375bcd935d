"""How fast an agent answers, and how fast it falls silent, measured on the wire.

The caller's voice is Piper's; the stages come from the call's own record (`turn.latency` events).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soxr

from sipserver.codecs.g711 import G711Encoder
from sipserver.speech import service
from sipserver.speech.settings import SpeechSettings
from tests.harness.phone import Phone
from tests.harness.server import ROOT, ServerProcess
from tools.bench.plans import AGENT
from tools.bench.report import Row, spread

LOUD = 300.0
WINDOW_NS = 1_000_000_000
STAGES = ("endpoint_ms", "stt_ms", "llm_ms", "tts_ms", "playout_ms", "total_ms")
QUESTIONS = ("What are your opening hours?", "When do you close today?", "Hello, when can I come to your shop?")


def voices(texts: Sequence[str]) -> list[bytes]:
    """Each text as mu-law at 8 kHz, trimmed so that its last packet is speech."""

    async def speak() -> list[bytes]:
        settings = SpeechSettings(models=ROOT / "var/models")
        speech = await service.load(settings, stt=(), tts=("piper",), vad=False)
        try:
            spoken = []
            for text in texts:
                chunks = [chunk async for chunk in speech.tts["piper"].synthesise(text)]
                loud = np.flatnonzero(np.abs(np.concatenate(chunks)) > 500)
                samples = np.concatenate(chunks)[loud[0] : loud[-1] + 1]
                spoken.append(G711Encoder.mu_law().encode(soxr.resample(samples, 16_000, 8000)))
            return spoken
        finally:
            await speech.close()

    return asyncio.run(speak())


def first_loud(phone: Phone, after_ns: int, timeout_s: float = 10) -> int | None:
    """Arrival of the first packet with sound after a moment, perf_counter_ns."""
    deadline, seen = time.monotonic() + timeout_s, 0
    while time.monotonic() < deadline:
        packets = phone.received[seen:]
        seen += len(packets)
        for packet in packets:
            if packet.at_ns > after_ns and packet.level > LOUD:
                return packet.at_ns
        time.sleep(0.005)
    return None


def quiet_since(phone: Phone, window_s: float = 1.0, timeout_s: float = 30) -> bool:
    """Wait until nothing loud came for window_s."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        edge = time.perf_counter_ns() - int(window_s * 1e9)
        recent = [packet for packet in phone.received[-int(window_s * 60) :] if packet.at_ns > edge]
        if recent and all(packet.level <= LOUD for packet in recent):
            return True
        time.sleep(0.02)
    return False


def speak(phone: Phone, ulaw: bytes) -> tuple[int, int]:
    """Say it; returns when its first and last packets left (perf_counter_ns)."""
    before = len(phone.sent_ns)
    count = -(-len(ulaw) // 160)
    phone.say(ulaw)
    while len(phone.sent_ns) < before + count + 2:
        time.sleep(0.005)
    return phone.sent_ns[before], phone.sent_ns[before + count - 1]


def measure_barge_in(folder: Path) -> Sequence[Row]:
    (voice,) = voices(["Stop please, I have another question for you."])
    delays: list[float] = []
    with ServerProcess(folder, {"bench.yaml": AGENT}) as server:
        for _ in range(12):
            with Phone(server.sip_port) as phone:
                assert phone.invite("talker").code == 200
                assert first_loud(phone, 0) is not None
                time.sleep(0.7)
                began_ns, _ended = speak(phone, voice)
                window = (packet for packet in phone.received if 0 < packet.at_ns - began_ns < WINDOW_NS)
                delays.append(
                    max((packet.at_ns - began_ns for packet in window if packet.level > LOUD), default=0) / 1e6
                )
    return [
        Row(
            "Barge-in: first loud caller packet to the agent's last sound on the wire",
            spread(delays),
            "p95 <= 200 ms",
            "12 calls; what the agent still says within 1 s",
        )
    ]


def measure_response(folder: Path, calls: int = 5) -> Sequence[Row]:
    questions = voices(QUESTIONS)
    delays: list[float] = []
    with ServerProcess(folder, {"bench.yaml": AGENT}) as server:
        for _ in range(calls):
            with Phone(server.sip_port) as phone:
                assert phone.invite("helper").code == 200
                assert first_loud(phone, 0) is not None
                for question in questions:
                    assert quiet_since(phone)
                    _began, ended_ns = speak(phone, question)
                    answered_ns = first_loud(phone, ended_ns)
                    if answered_ns is not None:
                        delays.append((answered_ns - ended_ns) / 1e6)
        server.stop()
        turns = latencies(server.database)
    by_stage = {stage: [turn[stage] for turn in turns] for stage in STAGES}
    wire_ms = statistics.median(delays) - statistics.median(by_stage["total_ms"])
    kept = sum(1 for turn in turns if turn["speculative"])
    return [
        Row(
            "Response: end of the caller's speech to the agent's first sound on the wire",
            spread(delays),
            "p50 <= 600 ms at a 400 ms endpoint",
            f"{calls} calls, {len(QUESTIONS)} questions each",
        ),
        *(Row(f"... by the record: {stage.removesuffix('_ms')}", spread(values)) for stage, values in by_stage.items()),
        Row("... turns answered from speculation", f"{kept} of {len(turns)}"),
        Row(
            "... playout, wire and bridge: what is neither model time nor endpoint wait",
            f"median {wire_ms + statistics.median(by_stage['playout_ms']):.0f} ms",
            "<= 40 ms",
            "wire figure less the record's total, and the record's playout",
        ),
    ]


def latencies(database: Path) -> list[dict[str, float]]:
    """The `turn.latency` events of all calls in a record database."""
    with contextlib.closing(sqlite3.connect(database)) as records:
        rows = records.execute("select fields from events where kind = 'turn.latency'").fetchall()
    return [json.loads(row[0]) for row in rows]
