"""Calls that talk with an agent: voice activity, recording, events and the conversation's control, without models.

Speech-to-text, the language model and the voice are stubs with real wire formats in a process of their own, which is
not counted. Every caller says a sentence, pauses, and says it again, each at a different moment.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tools.bench.fleet_options import Options
from tools.bench.fleet_point import of, own
from tools.bench.load import run, sound, stubs, usage
from tools.bench.report import Finding, Row, Table, progress

RATE = 10.0
SENTENCE = "Good morning, I would like to know when you are open."
PAUSE_S = 7.0

PLAN = """
tenant: bench
agents:
  clerk:
    prompt: You answer the phone. Answer in one short sentence.
    greeting: Hello, this is the bench.
    silence_s: 300
    stt: [stub]
    llm: {use: stub}
    tts: {use: stub}
flows:
  clerk: [answer, record, {agent: {use: clerk, on: {failed: end}}}]
routes:
  - match: {to: clerk}
    flow: clerk
"""


def overrides(base_url: str) -> dict[str, Any]:
    """One service for all three; the key is never looked at, but the client wants one."""
    os.environ.setdefault(stubs.KEY, "none")
    service = {"vendor": "openai", "base_url": base_url, "model": "stub", "api_key_env": stubs.KEY}
    return {
        "speech": {
            "stt": {"stub": {**service, "concurrency": 64, "queue": 256}},
            "tts": {"stub": {**service, "voice": "alloy", "queue": 256}},
        },
        "llm": {"stub": {**service, "concurrency": 256}},
        "fleet": {"speech_workers": 1},
        "calls": {"drain_s": 2},
    }


def measure(folder: Path, options: Options) -> Finding:
    calls = options.agent_calls
    with (
        progress("agents", 2) as begin,
        stubs.running() as services,
        options.target(folder, PLAN, calls, overrides(services.base_url)) as target,
    ):
        begin("idle")
        rest, _, _ = run.idle(target)
        begin(f"{calls} calls")
        speech = sound.speech(SENTENCE, folder, pause_s=PAUSE_S)
        load = run.Load("clerk", calls, RATE, max(options.seconds, 1.5 * len(speech) * 0.02), pattern=speech)
        asked = services.asked()
        served = usage.snapshot({"stubs": [services.pid]})
        seen = run.run(target, folder / "load", load)
        served_percent = usage.between(served, usage.snapshot({"stubs": [services.pid]})).total
        asked = services.asked() - asked
        run.await_nothing_left(target)
        left = target.left()
    point = of(seen)
    how = "events, VAD, recording, conversation; edge, Redis and speech worker included, stubs and database not"
    rows = [
        Row(f"CPU a call, {calls} calls with an agent", f"{point.cpu_a_call:.3f} % of a core", "<= 1.0 %", how),
        Row("... without calls", f"{own(rest.percent):.1f} % of a core"),
        Row("... failed", f"{seen.calls.failed} of {seen.calls.made}", "0"),
        Row(
            "... asked of the stubs",
            ", ".join(f"{count} {kind}" for kind, count in sorted(asked.items())),
            "",
            f"during {load.limit_s:.0f} s at most; the stubs used {served_percent:.0f} % of a core",
        ),
        Row("... frames late or lost", f"{point.bad_percent:.3f} %", "< 0.1 %", f"{point.frames} frames"),
        Row(
            "... memory",
            f"{point.memory_total:.0f} MB",
            "",
            ", ".join(f"{k} {v:.0f}" for k, v in point.memory_mb.items()),
        ),
        Row("... left over", f"{left.loads} at the edge, {left.calls} in cells, {left.limits} limits", "0"),
    ]
    table = Table(
        ("process", "% of a core", "... a call"),
        [
            (kind, f"{used:.1f}", f"{used / calls:.3f}")
            for kind, used in sorted(point.cpu.items(), key=lambda one: -one[1])
        ],
    )
    return Finding(rows, [table], {}, {"point": point.as_figures(), "asked": dict(asked), "idle": dict(rest.percent)})
