"""The whole way with real models: a synthetic voice over G.711, Whisper, a model, Piper, and Whisper at the far end."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sipserver.audio import sound_file
from tests.fakes.clips import word_error_rate, word_errors
from tests.fakes.openai_chat import OpenAiChat, text
from tests.harness.fleet import FleetProcess
from tests.harness.server import ROOT, ServerProcess

pytestmark = pytest.mark.models

QUESTIONS = (
    "What are your opening hours?",
    "How much does a large coffee cost?",
    "Can I bring my dog to the garden?",
)
ANSWERS = (
    "We open at nine in the morning.",
    "A large coffee costs three dollars.",
    "Yes, dogs are welcome in the garden.",
)
GREETING = "Hello, this is the garden shop."
PLAN = f"""
tenant: shop
agents:
  helper:
    prompt: You answer the phone for the garden shop.
    greeting: {GREETING}
    llm: {{use: shop}}
flows:
  main: [answer, record, {{agent: {{use: helper, on: {{failed: end}}}}}}]
routes:
  - match: {{to: shop}}
    flow: main
"""


Served = ServerProcess | FleetProcess


@asynccontextmanager
async def running(server: Served) -> AsyncIterator[Served]:
    await asyncio.to_thread(server.start)
    try:
        yield server
    finally:
        await asyncio.to_thread(server.stop)


async def call(server: Served, user: str, *says: str, record: Path) -> dict[str, Any]:
    """Place a call with the built-in caller as its users do; returns what `--json` prints."""
    words = [part for say in says for part in ("--say", say)]
    uri = f"sip:{user}@127.0.0.1:{server.sip_port}"
    options = ["--json", "--record", str(record), "--config", str(server.settings_file)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sipserver", "call", uri, *words, *options, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0
    result: dict[str, Any] = json.loads(printed)
    return result


def events(server: Served) -> list[tuple[str, dict[str, Any]]]:
    with closing(sqlite3.connect(server.database)) as database:
        rows = database.execute("select kind, fields from events order by seq").fetchall()
    return [(kind, json.loads(fields)) for kind, fields in rows]


@pytest.mark.parametrize("mode", ["single", "fleet"])
async def test_questions_are_heard_and_answers_can_be_understood(tmp_path: Path, mode: str) -> None:
    answers = [text(*(f"{word} " for word in answer.split())) for answer in ANSWERS]
    async with OpenAiChat(text("ok"), *answers) as model:
        overrides = {
            "sip": {"codecs": ["PCMA"]},
            "llm": {"shop": {"vendor": "openai", "base_url": model.base_url, "model": "double"}},
        }
        plans = {"shop.yaml": PLAN}
        server: Served = (
            ServerProcess(tmp_path / "server", plans, overrides)
            if mode == "single"
            else FleetProcess(tmp_path / "fleet", plans, {**overrides, "fleet": {"speech_workers": 1}}, calls=4)
        )
        async with running(server):
            result = await call(server, "shop", *QUESTIONS, record=tmp_path / "call.wav")
    happened = events(server)
    heard = [fields["text"] for kind, fields in happened if kind == "stt.transcript" and fields["final"]]
    assert result["codec"] == "PCMA"
    assert word_error_rate(zip(QUESTIONS, heard, strict=True)) <= 0.25
    understood = [result["greeting"]["text"], *(each["heard"]["text"] for each in result["exchanges"])]
    said = [GREETING, *(fields["text"] for kind, fields in happened if kind == "llm.span" and fields["text"])]
    assert word_error_rate(zip(said, understood, strict=True)) <= 0.25
    assert all(each["response_ms"] > 300 for each in result["exchanges"])
    assert len([kind for kind, _ in happened if kind == "turn.latency"]) == len(QUESTIONS)


async def test_the_demo_answers_on_its_own_models(tmp_path: Path) -> None:
    patient = {"llm": {"local": {"vendor": "llama_cpp", "first_token_timeout_s": 30}}}
    server = ServerProcess(tmp_path / "server", ROOT / "dialplans", patient)
    recorded = tmp_path / "call.wav"
    async with running(server):
        result = await call(server, "demo", "What are your opening hours?", record=recorded)
    happened = events(server)
    assert word_errors("Hello this is the demo of", " ".join(result["greeting"]["text"].split()[:6])) <= 2
    assert "opening" in next(f["text"] for kind, f in happened if kind == "stt.transcript" and f["final"]).lower()
    assert result["exchanges"][0]["heard"]["text"]
    assert [kind for kind, _ in happened].count("call.ended") == 1
    both = sound_file.read(recorded)  # mixed to mono
    assert len(both) > 16_000 * 4
    assert np.abs(both).max() < 32_767
