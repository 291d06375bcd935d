"""What one engine says, another understands, through a telephone line: the speech chain with real models."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from sipserver.audio.frame import FRAME_SAMPLES, Frame, Samples
from sipserver.speech import service
from sipserver.speech.contract import Tts
from sipserver.speech.settings import SpeechSettings
from tests.fakes.clips import over_the_phone, word_error_rate

pytestmark = pytest.mark.models

SENTENCES = (
    "Can you tell me when the office opens on Monday?",
    "I have a problem with my internet connection since last week.",
    "How much does the delivery cost?",
    "I want to cancel my subscription.",
    "Please transfer me to the sales department.",
    "Good morning, my name is John Miller.",
    "What is the weather like in Berlin today?",
    "Hello, is anybody there?",
)
UNDERSTOOD = {"piper": 8, "espeak": 6}  # Whisper does not understand espeak-ng well: 25 % errors clean, at any window


async def said(engine: Tts, text: str) -> Samples:
    return np.concatenate([samples async for samples in engine.synthesise(text)])


@pytest.mark.parametrize("mouth", ["piper", "espeak"])
async def test_synthetic_speech_is_understood_after_g711(tmp_path: Path, mouth: str) -> None:
    speech = await service.load(SpeechSettings(models=tmp_path), stt=["whisper"], tts=[mouth])
    try:
        pairs = []
        for text in SENTENCES[: UNDERSTOOD[mouth]]:
            sound = over_the_phone(await said(speech.tts[mouth], text))
            pairs.append((text, (await speech.stt["whisper"].transcribe(sound, language="en")).text))
        assert word_error_rate(pairs) <= 0.25, pairs
    finally:
        await speech.close()


async def test_the_detector_hears_speech_and_its_end(tmp_path: Path) -> None:
    speech = await service.load(SpeechSettings(models=tmp_path), tts=["piper"])
    assert speech.vad is not None
    try:
        pause = np.zeros(16_000, np.int16)
        words = over_the_phone(await said(speech.tts["piper"], SENTENCES[1]))
        hiss = np.random.default_rng(0).normal(0, 60, 2 * len(pause) + len(words)).astype(np.int16)
        sound = np.concatenate([pause, words, pause]) + hiss
        told: list[tuple[float, int]] = []
        news = asyncio.Event()

        def tell(probability: float, at_ns: int) -> None:
            told.append((probability, at_ns))
            news.set()

        stream = speech.vad.stream(tell)
        for number in range(len(sound) // FRAME_SAMPLES):
            frame = sound[number * FRAME_SAMPLES : (number + 1) * FRAME_SAMPLES]
            stream.hear(Frame(frame, (number + 1) * 20_000_000))
            while (number + 1) * FRAME_SAMPLES // 512 - len(told) > 5:  # never more than the detector keeps
                news.clear()
                await asyncio.wait_for(news.wait(), 10)
        stream.close()
        began = next(at_ns for probability, at_ns in told if probability >= 0.5) / 1e9
        ended = [at_ns for probability, at_ns in told if probability >= 0.35][-1] / 1e9
        assert 0.95 < began < 1.3
        assert abs(ended - (1 + len(words) / 16_000)) < 0.5
        assert max(probability for probability, at_ns in told if at_ns < 0.9e9) < 0.5
    finally:
        await speech.close()
