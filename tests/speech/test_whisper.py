"""Whisper: windows and judgement without a model; with the models, what is understood, in which language, at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sipserver.audio.frame import Samples
from sipserver.errors import ConfigError, ModelMissing, ProviderRejected
from sipserver.speech import models
from sipserver.speech.settings import WhisperSettings
from sipserver.speech.vendors import whisper
from sipserver.speech.vendors.whisper import Reading, Utterance, Whisper, WhisperModel, alike, window_s
from tests.fakes.clips import espeak, over_the_phone, word_errors

SAMPLES = np.ones(16_000, np.int16)


def utterance(window: float, seconds: float = 1.0, language: str = "en") -> Utterance:
    return Utterance(np.zeros(int(seconds * 16_000), np.float32), language, window)


@pytest.mark.parametrize(
    ("seconds", "multilingual", "window"),
    [(0.3, False, 1.2), (1.5, False, 1.7), (1.501, False, 1.72), (29.9, False, 30), (0.9, True, 10), (1.5, True, 1.7)],
)
def test_windows(seconds: float, multilingual: bool, window: float) -> None:
    assert window_s(seconds, multilingual) == pytest.approx(window)


def test_like_windows_share_a_batch() -> None:
    assert alike(utterance(1.2), utterance(1.7))
    assert not alike(utterance(1.2), utterance(2.0))
    assert alike(utterance(10), utterance(12))
    assert not alike(utterance(3), utterance(10))


@pytest.mark.parametrize(
    ("reading", "is_speech", "doubtful"),
    [
        (Reading("Yes, please.", "en", -0.3, 0.1), True, False),
        (Reading("Where is it? Where is it? Where", "en", -0.1, 0.1), True, True),
        (Reading("Please, please, please, please", "en", -0.1, 0.1), True, True),
        (Reading("No, no, no, I said no.", "en", -0.1, 0.1), True, False),
        (Reading("Thank you. Happy Mal.", "en", -0.9, 0.4), True, True),
        (Reading("So", "en", -1.5, 0.4), False, True),
        (Reading("So", "en", -2.5, 0.4), False, False),
        (Reading("So", "en", -1.0, 0.7), False, False),
    ],
)
def test_judgement(reading: Reading, is_speech: bool, doubtful: bool) -> None:
    assert (reading.is_speech, reading.doubtful) == (is_speech, doubtful)


class ScriptedModel(WhisperModel):
    """A model whose looks are scripted: (window -> readings) in order; remembers what it was shown."""

    def __init__(self, *looks: Sequence[Reading], multilingual: bool = False) -> None:
        self.multilingual = multilingual
        self.languages = frozenset({"en", "de"}) if multilingual else frozenset({"en"})
        self._looks = list(looks)
        self.shown: list[tuple[int, float]] = []

    def _look(self, utterances: Sequence[Utterance], window: float) -> list[Reading]:
        self.shown.append((len(utterances), window))
        return list(self._looks.pop(0))


CLEAR = Reading("Yes.", "en", -0.1, 0.0)
DOUBTFUL = Reading("Yeah so.", "en", -1.0, 0.0)


def test_only_what_is_doubtful_is_looked_at_again_in_a_longer_window() -> None:
    better = Reading("Yes, sir.", "en", -0.5, 0.0)
    model = ScriptedModel([CLEAR, DOUBTFUL], [better])
    assert model.read([utterance(1.2), utterance(1.4)]) == [CLEAR, better]
    assert model.shown == [(2, 1.4), (1, 10.0)]


def test_the_better_of_two_looks_counts_and_a_repeating_one_never() -> None:
    worse = Reading("Jason.", "en", -1.1, 0.0)
    assert ScriptedModel([DOUBTFUL], [worse]).read([utterance(1.2)]) == [DOUBTFUL]
    loop = Reading("Where is my parcel? Where is my parcel?", "en", -0.1, 0.0)
    once = Reading("Where is my parcel?", "en", -0.3, 0.0)
    assert ScriptedModel([loop], [once]).read([utterance(1.2)]) == [once]


def test_there_is_no_second_look_where_the_window_would_not_grow() -> None:
    model = ScriptedModel([DOUBTFUL])
    assert model.read([utterance(10.0, 0.9)]) == [DOUBTFUL]
    long = ScriptedModel([DOUBTFUL], [CLEAR])
    assert long.read([utterance(12.2, 12.0)]) == [CLEAR]
    assert long.shown == [(1, 12.2), (1, 30.0)]


def test_what_is_no_speech_has_no_text() -> None:
    noise = Reading("Thanks for watching!", "en", -2.5, 0.2)
    (reading,) = ScriptedModel([noise]).read([utterance(1.2)])
    assert (reading.text, reading.log_probability) == ("", -2.5)


@pytest.fixture
async def scripted() -> AsyncIterator[Whisper]:
    engine = Whisper("ear", ScriptedModel([CLEAR], multilingual=True), WhisperSettings())
    yield engine
    await engine.close()


async def test_a_transcription_carries_confidence_and_times(scripted: Whisper) -> None:
    heard = await scripted.transcribe(SAMPLES, language="en-US")
    assert (heard.text, heard.language, heard.confidence) == ("Yes.", "en", -0.1)
    assert heard.queued_ms >= 0 <= heard.took_ms
    assert scripted.depth == 0


async def test_what_the_model_cannot_do_is_refused(scripted: Whisper) -> None:
    with pytest.raises(ProviderRejected, match="fr-FR"):
        await scripted.transcribe(SAMPLES, language="fr-FR")
    with pytest.raises(ProviderRejected, match="longer than 30 s"):
        await scripted.transcribe(np.zeros(31 * 16_000, np.int16))


async def test_no_samples_need_no_model(scripted: Whisper) -> None:
    assert (await scripted.transcribe(SAMPLES[:0])).text == ""


async def test_a_missing_or_wrong_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="OWNER/large"):
        await whisper.load("ear", WhisperSettings(model="large"), tmp_path)
    (tmp_path / "large").mkdir()
    with pytest.raises(ConfigError, match=r"config\.json, model\.bin, tokenizer\.json not there"):
        await whisper.load("ear", WhisperSettings(model="large"), tmp_path)
    for name in ("config.json", "model.bin"):
        (tmp_path / "large" / name).write_text("{}")
    (tmp_path / "large" / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match="could not be loaded"):
        await whisper.load("ear", WhisperSettings(model="large"), tmp_path)


# --- with models ------------------------------------------------------------------------------------------------------

SENTENCES = (
    "Can you tell me when the office opens on Monday?",
    "I have a problem with my internet connection since last week.",
    "I would like to book a table for two people tomorrow evening.",
    "How much does the delivery cost?",
)


def white_noise(level: float, seconds: float) -> Samples:
    return np.random.default_rng(0).normal(0, level, int(seconds * 16_000)).astype(np.int16)


@pytest.mark.models
async def test_english_utterances_at_once_and_one_by_one(tmp_path: Path) -> None:
    engine = await whisper.load("ear", WhisperSettings(), tmp_path)
    try:
        assert engine.capabilities.languages == {"en"}
        assert not engine.capabilities.detects_language
        sounds = [espeak(text) for text in SENTENCES]
        alone = [await engine.transcribe(sound) for sound in sounds]
        together = await asyncio.gather(*[engine.transcribe(sound) for sound in sounds])
        for heard in (alone, together):
            assert sum(word_errors(text, one.text) for text, one in zip(SENTENCES, heard, strict=True)) <= 6
            assert all(one.language == "en" and one.confidence is not None for one in heard)
        with pytest.raises(ProviderRejected, match="de"):
            await engine.transcribe(sounds[0], language="de")
        for noise in (white_noise(0, 2), white_noise(300, 0.5), white_noise(3000, 2)):
            assert (await engine.transcribe(noise)).text == ""
    finally:
        await engine.close()


@pytest.fixture(scope="module")
def multilingual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with `base`; put together once."""
    folder = tmp_path_factory.mktemp("models")
    models.install("base", folder)
    return folder


@pytest.mark.models
async def test_german_is_detected_and_given(multilingual: Path) -> None:
    engine = await whisper.load("ear", WhisperSettings(model="base"), multilingual)
    try:
        assert engine.capabilities.detects_language
        assert {"de", "en", "fr"} <= (engine.capabilities.languages or set())
        text = "Ich habe eine Frage zu meiner Rechnung."
        sound = espeak(text, "de")
        detected, given, english = await asyncio.gather(
            engine.transcribe(sound),
            engine.transcribe(sound, language="de-DE"),
            engine.transcribe(over_the_phone(espeak(SENTENCES[0]))),
        )
        assert (detected.language, given.language, english.language) == ("de", "de", "en")
        assert word_errors(text, detected.text) <= 2
        assert word_errors(SENTENCES[0], english.text) <= 2
    finally:
        await engine.close()


@pytest.mark.models
async def test_a_window_of_30_s_works_too(tmp_path: Path) -> None:
    engine = await whisper.load("ear", WhisperSettings(timeout_s=60), tmp_path)
    try:
        pause = np.zeros(9 * 16_000, np.int16)
        sound = np.concatenate([espeak(SENTENCES[0]), pause, pause, espeak(SENTENCES[1])])
        heard: Any = await engine.transcribe(sound)
        assert "office" in heard.text
    finally:
        await engine.close()
