"""OpenAI-compatible speech: streamed, resampled, given up cleanly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from sipserver.audio.frame import Samples
from sipserver.errors import ProviderError, ProviderRejected, ProviderTimeout
from sipserver.speech.settings import OpenAiTtsSettings
from sipserver.speech.vendors import openai_tts
from tests.fakes.openai_audio import OpenAiAudioServer


@pytest.fixture
async def server() -> AsyncIterator[OpenAiAudioServer]:
    async with OpenAiAudioServer() as server:
        yield server


@pytest.fixture
async def engine(server: OpenAiAudioServer) -> AsyncIterator[openai_tts.OpenAiTts]:
    engine = await openai_tts.load("cloud", OpenAiTtsSettings(vendor="openai", base_url=server.url, timeout_s=30))
    yield engine
    await engine.close()


async def spoken(engine: openai_tts.OpenAiTts, text: str, **options: str) -> list[Samples]:
    return [samples async for samples in engine.synthesise(text, **options)]


async def test_speech_is_streamed_at_16_khz_though_samples_are_split(
    engine: openai_tts.OpenAiTts, server: OpenAiAudioServer
) -> None:
    chunks = await spoken(engine, "Hello.", voice="nova")
    sound = np.concatenate(chunks)
    assert len(chunks) > 2
    assert abs(len(sound) - 8000) <= 2
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    assert np.argmax(spectrum) * 16_000 / len(sound) == pytest.approx(440, abs=4)
    assert 7000 < np.abs(sound).max() < 9000
    assert server.asked[0].fields == {"input": "Hello.", "model": "tts-1", "voice": "nova", "response_format": "pcm"}


async def test_the_default_voice_is_the_settings_one(engine: openai_tts.OpenAiTts, server: OpenAiAudioServer) -> None:
    await spoken(engine, "Hello.")
    assert server.asked[0].fields["voice"] == "alloy"


async def test_the_first_sound_comes_before_the_last_is_made(
    engine: openai_tts.OpenAiTts, server: OpenAiAudioServer
) -> None:
    server.hold.clear()
    server.after = 9602
    stream = engine.synthesise("Hello.")
    assert len(await anext(stream)) > 0
    server.hold.set()
    assert sum([len(samples) async for samples in stream]) > 0


async def test_giving_up_ends_the_request(engine: openai_tts.OpenAiTts, server: OpenAiAudioServer) -> None:
    server.hold.clear()
    server.after = 4801
    stream = engine.synthesise("Hello.")
    await anext(stream)
    await stream.aclose()
    await asyncio.wait_for(server.gone.wait(), 10)
    async with engine.gate.passage():
        assert engine.depth == 0


async def test_nothing_to_say_is_not_sent(engine: openai_tts.OpenAiTts, server: OpenAiAudioServer) -> None:
    assert await spoken(engine, " \n") == []
    assert server.asked == []


@pytest.mark.parametrize(("status", "error"), [(401, ProviderRejected), (500, ProviderError)])
async def test_refusals_are_errors(
    engine: openai_tts.OpenAiTts, server: OpenAiAudioServer, status: int, error: type[ProviderError]
) -> None:
    server.status = status
    with pytest.raises(error, match="not today"):
        await spoken(engine, "Hello.")


@pytest.mark.parametrize("after", [0, 4801])
async def test_no_sound_in_time_is_a_timeout(server: OpenAiAudioServer, after: int) -> None:
    server.hold.clear()
    server.after = after
    settings = OpenAiTtsSettings(vendor="openai", base_url=server.url, timeout_s=0.1)
    engine = await openai_tts.load("cloud", settings)
    with pytest.raises(ProviderTimeout):
        await spoken(engine, "Hello.")
    await engine.close()


async def test_a_connection_that_is_cut_is_an_error(engine: openai_tts.OpenAiTts, server: OpenAiAudioServer) -> None:
    server.broken, server.after = "cut", 4801
    with pytest.raises(ProviderError, match="not understood"):
        await spoken(engine, "Hello.")
