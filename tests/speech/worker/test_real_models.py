"""A real worker process with real models says what the engines say in the process itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sipserver.agent.llm.contract import Message
from sipserver.audio.frame import FRAME_SAMPLES, Frame, Samples
from sipserver.engines import EngineRoom, Wanted
from sipserver.errors import ProviderError
from sipserver.settings import Settings
from sipserver.speech.contract import Vad
from sipserver.speech.settings import PiperSettings, WhisperSettings
from sipserver.speech.vendors import piper, silero, whisper
from sipserver.speech.vendors.silero import HUSH_PEAK
from sipserver.speech.vendors.wyoming_vad import WyomingVad
from tests.fakes.clips import espeak, over_the_phone
from tests.fakes.until import until
from tests.servers.speech import ROOT, SpeechProcess

pytestmark = pytest.mark.models

PLAN = """tenant: real
agents:
  helper: {prompt: Be short., stt: [whisper], llm: {use: local}, tts: {use: piper}}
flows:
  main: [answer, {agent: {use: helper, on: {failed: end}}}]
routes:
  - {match: {}, flow: main}
"""
MODELS = ROOT / "var/models"
CALLERS = (
    "I would like to know your opening hours.",
    "My name is Miller, and I have a question about my last invoice.",
    "No, thank you. Good bye.",
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("dialplans")
    (folder / "real.yaml").write_text(PLAN)
    return Settings.model_validate(
        {
            "dialplans": str(folder),
            "speech": {"models": str(MODELS)},
            "llm": {"local": {"vendor": "llama_cpp", "first_token_timeout_s": 30}},
        }
    )


@pytest.fixture(scope="module")
def worker(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SpeechProcess]:
    process = SpeechProcess(tmp_path_factory.mktemp("worker"), settings.model_dump(mode="json"))
    process.start()
    yield process
    process.stop()


async def judged(vad: Vad, sound: Samples) -> list[tuple[float, int]]:
    """Fed somewhat faster than in a call, stamped as if exactly every 20 ms."""
    told: list[tuple[float, int]] = []
    stream = vad.stream(lambda probability, at_ns: told.append((probability, at_ns)))
    if isinstance(vad, WyomingVad):
        await until(lambda: stream._link is not None)  # type: ignore[attr-defined]
    began = time.monotonic()
    for number, start in enumerate(range(0, len(sound) - FRAME_SAMPLES + 1, FRAME_SAMPLES), 1):
        stream.hear(Frame(sound[start : start + FRAME_SAMPLES], number * 20_000_000))
        await asyncio.sleep(max(0.0, began + number * 0.014 - time.monotonic()))
    stream.close()
    return told


async def test_transcripts_are_those_of_the_engine_itself(settings: Settings, worker: SpeechProcess) -> None:
    room = EngineRoom(settings, [worker.uri])
    await room.bring(Wanted(False, frozenset({"whisper"}), frozenset(), frozenset()))
    engine = await whisper.load("whisper", WhisperSettings(), MODELS)
    client = room.engines.stt["whisper"]
    assert client.capabilities == engine.capabilities
    sounds = [over_the_phone(espeak(text)) for text in CALLERS]
    there = await asyncio.gather(*(client.transcribe(sound, language="en") for sound in sounds))
    for sound, told in zip(sounds, there, strict=True):
        here = await engine.transcribe(sound, language="en")
        assert told.text == here.text
        assert told.confidence == pytest.approx(here.confidence, abs=0.05)
        assert told.took_ms > 0
    await engine.close()
    await room.close()


async def test_voice_activity_is_that_of_the_detector_itself(settings: Settings, worker: SpeechProcess) -> None:
    quiet = np.zeros(9_600, np.int16)
    speech = [over_the_phone(espeak(text, words_per_minute=220)) for text in (CALLERS[0], CALLERS[2])]
    sound = np.concatenate([quiet, speech[0], quiet, speech[1], quiet])
    noise = np.random.default_rng(1).normal(0, 2 * HUSH_PEAK, len(sound))  # which chunks are hush depends on the load
    sound = (sound + noise).clip(-32_768, 32_767).astype(np.int16)
    room = EngineRoom(settings, [worker.uri])
    await room.bring(Wanted(True, frozenset(), frozenset(), frozenset()))
    detector = await silero.load(MODELS)
    here, there = await asyncio.gather(judged(detector, sound), judged(room.engines.vad, sound))
    common = min(len(here), len(there))
    assert abs(len(here) - len(there)) <= 3
    assert [at_ns for _, at_ns in here[:common]] == [at_ns for _, at_ns in there[:common]]
    np.testing.assert_allclose([p for p, _ in there[:common]], [p for p, _ in here[:common]], atol=0.001)
    assert any(p > 0.9 for p, _ in there)
    assert isinstance(room.engines.vad, WyomingVad)
    assert room.engines.vad.stood_in == 0
    await detector.close()
    await room.close()


async def test_a_clause_is_spoken_once_for_everybody(settings: Settings, worker: SpeechProcess) -> None:
    text = "Hello, this is Acme, how can I help?"
    rooms = [EngineRoom(settings, [worker.uri]) for _ in range(2)]
    engine = await piper.load("piper", PiperSettings(), MODELS)
    took, spoken = [], []
    for room in rooms:
        await room.bring(Wanted(False, frozenset(), frozenset({"piper"}), frozenset()))
        client = room.engines.tts["piper"]
        assert client.capabilities == engine.capabilities
        began = time.monotonic()
        spoken.append(np.concatenate([samples async for samples in client.synthesise(text, voice="en_US-joe-medium")]))
        took.append(time.monotonic() - began)
        await room.close()
    await engine.close()
    np.testing.assert_array_equal(spoken[0], spoken[1])
    assert len(spoken[0]) > 16_000
    assert took[1] < took[0] / 3


async def test_the_language_model_is_started_once_and_found_again(settings: Settings, worker: SpeechProcess) -> None:
    rooms = [EngineRoom(settings, [worker.uri]) for _ in range(2)]
    wish = Wanted(False, frozenset(), frozenset(), frozenset({"local"}))
    asked = [Message("user", "Say hello.")]

    async def answers(room: EngineRoom) -> bool:
        try:
            return bool([delta async for delta in room.engines.llm["local"].stream(asked, max_tokens=5)])
        except ProviderError:
            return False

    for room in rooms:
        await room.bring(wish)
        assert await answers(room)
    assert len(servers_of(worker)) == 1
    lost = servers_of(worker)
    worker.kill()
    await until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in lost), "the end of the orphan")
    assert not await answers(rooms[0])
    await asyncio.to_thread(worker.start)
    again = EngineRoom(settings, [worker.uri])
    await again.bring(wish)
    assert len(servers_of(worker)) == 1
    await again.close()
    for room in rooms:
        assert await answers(room) or await answers(room), "the first question may find the old address"
        await room.close()


def servers_of(worker: SpeechProcess) -> list[str]:
    """Process ids of the worker's children."""
    children = Path(f"/proc/{worker.pid}/task").glob("*/children")
    return [pid for listing in children for pid in listing.read_text().split()]
