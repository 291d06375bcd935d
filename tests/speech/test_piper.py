"""Piper: which voice speaks, how the sound comes out, and how it is given up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sipserver.audio.frame import Samples
from sipserver.errors import ConfigError, ModelMissing, ProviderError, ProviderRejected
from sipserver.speech.settings import PiperSettings
from sipserver.speech.vendors import piper
from sipserver.speech.vendors.piper import Piper, Voice


@dataclass
class Sentence:
    audio_int16_array: Samples
    sample_rate: int = 22_050


@dataclass
class FakeVoice:
    """Says a second a sentence, after 50 ms of silence; waits before every sentence but the first until let go."""

    spoken: list[str] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)

    def synthesize(self, text: str) -> Iterator[Sentence]:
        for number, sentence in enumerate(text.split(". ")):
            if number:
                assert self.go_on.wait(timeout=10)
            self.spoken.append(sentence)
            if sentence == "crash":
                raise RuntimeError("no such phoneme")
            sound = np.full(22_050, 0 if sentence == "hush" else 5000, np.int16)
            sound[: 22_050 // 20] = 3
            yield Sentence(sound)


@pytest.fixture
def voice() -> FakeVoice:
    return FakeVoice()


@pytest.fixture
async def engine(voice: FakeVoice) -> AsyncIterator[Piper]:
    voices = {"amy": Voice("amy", "en", voice), "eva": Voice("eva", "de", FakeVoice())}
    engine = Piper("mouth", voices, PiperSettings())
    yield engine
    voice.go_on.set()
    await engine.close()


async def spoken(engine: Piper, text: str, **options: str) -> list[Samples]:
    return [samples async for samples in engine.synthesise(text, **options)]


async def test_the_silence_before_the_first_word_is_cut(engine: Piper) -> None:
    (samples,) = await spoken(engine, "Hello")
    assert samples.dtype == np.int16
    assert len(samples) == pytest.approx(0.96 * 16_000, abs=40)
    assert np.flatnonzero(np.abs(samples) > 100)[0] <= 160


async def test_the_gain_leaves_headroom(voice: FakeVoice) -> None:
    loudest = []
    for gain in (1.0, 0.5):
        engine = Piper("mouth", {"amy": Voice("amy", "en", voice, gain)}, PiperSettings())
        (samples,) = await spoken(engine, "Hello")
        loudest.append(int(np.abs(samples.astype(int)).max()))
        await engine.close()
    assert loudest[1] == pytest.approx(loudest[0] / 2, abs=1)


async def test_sentences_come_as_they_are_ready_and_only_the_first_is_cut(engine: Piper, voice: FakeVoice) -> None:
    stream = engine.synthesise("One. Two")
    first = await anext(stream)
    assert voice.spoken == ["One"]
    voice.go_on.set()
    (second,) = [samples async for samples in stream]
    assert len(second) - len(first) == pytest.approx(0.04 * 16_000, abs=40)


async def test_giving_up_ends_after_the_sentence_at_work(engine: Piper, voice: FakeVoice) -> None:
    stream = engine.synthesise("One. Two. Three")
    await anext(stream)
    await stream.aclose()
    voice.go_on.set()
    await spoken(engine, "After")
    assert "Three" not in voice.spoken


async def test_language_and_voice_choose_the_speaker(engine: Piper) -> None:
    assert engine.capabilities.languages == {"en", "de"}
    assert engine.capabilities.voices == ("amy", "eva")
    assert await spoken(engine, "Hallo", language="de-CH")
    assert await spoken(engine, "Hallo", voice="eva", language="en")
    with pytest.raises(ProviderRejected, match="fr"):
        await spoken(engine, "Salut", language="fr")
    with pytest.raises(ProviderRejected, match="there are amy, eva"):
        await spoken(engine, "Hello", voice="bob")


async def test_nothing_to_say_makes_no_sound(engine: Piper, voice: FakeVoice) -> None:
    assert await spoken(engine, "  ") == []
    assert await spoken(engine, "hush") == []
    assert voice.spoken == ["hush"]


async def test_an_engine_that_fails_says_so_and_goes_on(engine: Piper) -> None:
    with pytest.raises(ProviderError, match="no such phoneme"):
        await spoken(engine, "crash")
    assert await spoken(engine, "Hello")
    assert engine.depth == 0


async def test_missing_and_wrong_voices_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="OWNER/nobody"):
        await piper.load("mouth", PiperSettings(voices=("nobody",)), tmp_path)
    (tmp_path / "bad.onnx").write_bytes(b"no")
    with pytest.raises(ConfigError, match=r"\.onnx\.json"):
        await piper.load("mouth", PiperSettings(voices=("bad.onnx",)), tmp_path)
    (tmp_path / "bad.onnx.json").write_text("{}")
    with pytest.raises(ConfigError, match="could not be loaded"):
        await piper.load("mouth", PiperSettings(voices=("bad.onnx",)), tmp_path)


@pytest.mark.models
async def test_the_voice_of_the_catalogue_speaks(tmp_path: Path) -> None:
    engine = await piper.load("mouth", PiperSettings(), tmp_path)
    try:
        assert engine.capabilities.languages == {"en"}
        assert engine.capabilities.voices == ("en_US-joe-medium",)
        both: Any = await asyncio.gather(spoken(engine, "Good morning."), spoken(engine, "One. Two."))
        assert len(both[1]) == 2
        sound = np.concatenate(both[0])
        assert 0.4 * 16_000 < len(sound) < 2 * 16_000
        assert np.abs(sound).max() > 5000
    finally:
        await engine.close()
