"""whisper.cpp: what the engine makes of the binding's answers; with a model, that the binding is driven right."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sipserver.errors import ConfigError, ModelMissing, ProviderRejected
from sipserver.speech import models
from sipserver.speech.settings import WhisperCppSettings
from sipserver.speech.vendors import whisper_cpp
from sipserver.speech.vendors.whisper_cpp import WhisperCpp, WhisperCppModel
from tests.fakes import ggml
from tests.fakes.clips import espeak, over_the_phone, word_errors

SECOND = np.ones(16_000, np.int16)


@dataclass
class Segment:
    text: str
    probability: float


class FakeBinding:
    """The two functions of the C binding that are called beside the package's model."""

    def whisper_full_lang_id(self, _context: object) -> int:
        return 2

    def whisper_lang_str(self, number: int) -> str:
        return ("en", "zh", "de")[number]


class FakeModel:
    """pywhispercpp's Model with a scripted answer."""

    _ctx = object()

    def __init__(self, *segments: Segment) -> None:
        self.segments = segments
        self.asked: list[tuple[int, dict[str, Any]]] = []

    def transcribe(self, sound: Any, **options: Any) -> list[Segment]:
        assert sound.dtype == np.float32
        self.asked.append((len(sound), options))
        return list(self.segments)


def engine_of(model: FakeModel, *, multilingual: bool = True) -> WhisperCpp:
    wrapped = WhisperCppModel.__new__(WhisperCppModel)
    wrapped._binding, wrapped._model = FakeBinding(), model
    wrapped.multilingual = multilingual
    wrapped.languages = frozenset({"en", "de"} if multilingual else {"en"})
    return WhisperCpp("ear", wrapped, WhisperCppSettings(vendor="whisper_cpp", model="x"))


@pytest.fixture
async def speaking() -> AsyncIterator[tuple[WhisperCpp, FakeModel]]:
    model = FakeModel(Segment("Guten", 0.5), Segment("Tag", 0.5))
    engine = engine_of(model)
    yield engine, model
    await engine.close()


async def test_segments_become_one_text_in_the_language_heard(speaking: tuple[WhisperCpp, FakeModel]) -> None:
    engine, model = speaking
    heard = await engine.transcribe(SECOND)
    assert (heard.text, heard.language) == ("Guten Tag", "de")
    assert heard.confidence == pytest.approx(math.log(0.5))
    assert model.asked[0][1]["language"] == "auto"
    assert engine.depth == 0


async def test_the_window_is_10_s_or_longer_and_short_sounds_are_padded(
    speaking: tuple[WhisperCpp, FakeModel],
) -> None:
    engine, model = speaking
    for seconds in (0.5, 12, 30):
        await engine.transcribe(np.ones(int(seconds * 16_000), np.int16), language="de")
    assert [(length, options["audio_ctx"]) for length, options in model.asked] == [
        (17_600, 500),
        (192_000, 650),
        (480_000, 1500),
    ]


@pytest.mark.parametrize("segment", [Segment("[BLANK_AUDIO]", 0.9), Segment("Thanks!", 0.1), Segment("*click*", 0.9)])
async def test_what_is_no_speech_has_no_text(segment: Segment) -> None:
    engine = engine_of(FakeModel(segment))
    assert (await engine.transcribe(SECOND, language="en")).text == ""
    await engine.close()


async def test_no_segments_are_no_text() -> None:
    engine = engine_of(FakeModel())
    heard = await engine.transcribe(SECOND, language="en")
    assert (heard.text, heard.confidence) == ("", None)
    assert (await engine.transcribe(SECOND[:0])).text == ""
    await engine.close()


async def test_an_english_model_hears_english_only() -> None:
    model = FakeModel(Segment("Hello", 0.9))
    engine = engine_of(model, multilingual=False)
    assert not engine.capabilities.detects_language
    assert (await engine.transcribe(SECOND)).language == "en"
    with pytest.raises(ProviderRejected, match="de"):
        await engine.transcribe(SECOND, language="de")
    with pytest.raises(ProviderRejected, match="longer than 30 s"):
        await engine.transcribe(np.zeros(500_000, np.int16))
    await engine.close()


async def test_missing_and_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="absent"):
        await whisper_cpp.load("ear", WhisperCppSettings(vendor="whisper_cpp", model="absent"), tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="is no file"):
        await whisper_cpp.load("ear", WhisperCppSettings(vendor="whisper_cpp", model="folder"), tmp_path)
    (tmp_path / "wrong.bin").write_bytes(b"no model at all" * 100)
    with pytest.raises(ConfigError, match="could not be loaded"):
        await whisper_cpp.load("ear", WhisperCppSettings(vendor="whisper_cpp", model="wrong.bin"), tmp_path)


@pytest.mark.models
async def test_a_real_model_is_driven_through_the_binding(tmp_path: Path) -> None:
    ggml.convert(models.find("tiny.en", tmp_path), tmp_path / "tiny.en.bin")
    settings = WhisperCppSettings(vendor="whisper_cpp", model="tiny.en.bin", timeout_s=60)
    engine = await whisper_cpp.load("ear", settings, tmp_path)
    try:
        assert engine.capabilities.languages == {"en"}
        text = "I have a problem with my internet connection since last week."
        heard = await engine.transcribe(over_the_phone(espeak(text)))
        assert word_errors(text, heard.text) <= 2
        assert heard.confidence is not None
        assert -1 < heard.confidence < 0
        assert (await engine.transcribe(np.zeros(32_000, np.int16))).text == ""
    finally:
        await engine.close()
