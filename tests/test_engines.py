"""What is loaded for which dialplans, and that a failed load leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sipserver.dialplan.book import Book
from sipserver.engines import EngineRoom, wanted
from sipserver.errors import ModelMissing, ProviderRejected
from sipserver.settings import Settings
from tests.fakes.dialplans import plan

AGENT = """agents:
  helper: {prompt: Be short., stt: [whisper], llm: {use: local}, tts: {use: piper}}
"""
TALKS = "main: [answer, {agent: {use: helper, on: {failed: end}}}]"


def book(flows: str, head: str = "") -> Book:
    return Book((plan(flows, head=head),))


def test_an_echo_needs_nothing() -> None:
    want = wanted(book("main: [answer, echo]"), ("piper", "espeak"))
    assert (want.vad, want.stt, want.tts, want.llm) == (False, frozenset(), frozenset(), frozenset())


def test_a_say_may_use_every_voice_but_needs_no_ears() -> None:
    want = wanted(book("main: [answer, {say: Hello.}]"), ("piper", "espeak"))
    assert (want.vad, want.stt, want.tts) == (False, frozenset(), {"piper", "espeak"})


def test_an_agent_needs_ears_a_model_and_the_voices_that_the_settings_have() -> None:
    want = wanted(book(TALKS, AGENT), ("piper",))
    assert (want.vad, want.stt, want.tts, want.llm) == (True, {"whisper"}, {"piper"}, {"local"})


def test_words_that_tell_who_answered_need_ears_alone() -> None:
    want = wanted(book("main: [{amd: {transcript: true}}]"), ("piper",))
    assert (want.vad, want.stt, want.tts, want.llm) == (False, {"whisper"}, frozenset(), frozenset())
    assert not wanted(book("main: [amd]"), ("piper",)).stt


async def test_without_an_agent_no_detector_is_there() -> None:
    room = EngineRoom(Settings())
    await room.load(book("main: [answer, echo]"))
    with pytest.raises(ProviderRejected):
        room.engines.vad.stream(lambda _probability, _at_ns: None)
    assert room.depths() == {}
    await room.close()


async def test_a_missing_model_is_named_and_nothing_stays(tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {
            "speech": {"models": tmp_path, "tts": {"espeak": {"vendor": "espeak"}}},
            "llm": {"local": {"vendor": "llama_cpp", "model": str(tmp_path / "none.gguf")}},
        }
    )
    agent = AGENT.replace("piper", "espeak")
    room = EngineRoom(settings)
    with pytest.raises(ModelMissing, match="install"):
        await room.load(book(TALKS, agent))
    assert (room.engines.stt, room.engines.tts, room.engines.llm) == ({}, {}, {})
    assert [check.name for check in room.checks(book(TALKS, agent)) if not check.ok] == [
        "stt.whisper",
        "tts.espeak",
        "llm.local",
    ]
    await room.close()


def test_engines_that_the_settings_do_not_have_are_named_with_their_line() -> None:
    room = EngineRoom(Settings(llm={}))
    (problem,) = room.unknown(book(TALKS, AGENT))
    assert "local" in str(problem)
    assert problem.line


def loaded_modules(code: str) -> set[str]:
    """What a process of its own holds after the code."""
    listing = "import sys; print(' '.join(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{listing}"], capture_output=True, check=True, text=True)
    return set(done.stdout.splitlines()[-1].split())


HEAVY = {
    "onnxruntime",
    "ctranslate2",
    "piper",
    "pywhispercpp",
    "tokenizers",
    "av",
    "soxr",
    "xllamacpp",
    "huggingface_hub",
}


def test_a_process_with_speech_workers_imports_no_engine() -> None:
    held = loaded_modules(
        "from sipserver.settings import Settings\n"
        "import sipserver.exchange, sipserver.engines, sipserver.agent.conversation\n"
        "sipserver.engines.EngineRoom(Settings(), ['unix:///nowhere.sock'])"
    )
    assert not held & (HEAVY | {"openai"})
    assert {"wyoming", "numpy"} <= held


def test_a_parent_imports_what_its_children_will_need_and_no_more() -> None:
    preload = "from sipserver.settings import Settings\nfrom sipserver.engines import preload\npreload(Settings({}))"
    with_model = loaded_modules(preload.replace("{}", ""))
    assert "openai" in with_model
    assert not with_model & HEAVY
    assert "openai" not in loaded_modules(preload.replace("{}", "llm={}"))
