"""OpenAI-compatible transcription against a server that speaks the real wire format."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from sipserver.errors import (
    ProviderBusy,
    ProviderError,
    ProviderRejected,
    ProviderTimeout,
    SettingsError,
)
from sipserver.speech.settings import OpenAiSttSettings
from sipserver.speech.vendors import openai_stt
from tests.fakes.openai_audio import OpenAiAudioServer

SOUND = (np.arange(1600) % 200).astype(np.int16)


@pytest.fixture
async def server() -> AsyncIterator[OpenAiAudioServer]:
    async with OpenAiAudioServer() as server:
        yield server


@pytest.fixture
async def engine(server: OpenAiAudioServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[openai_stt.OpenAiStt]:
    monkeypatch.setenv("TEST_KEY", "secret")
    settings = OpenAiSttSettings(
        vendor="openai", base_url=server.url, api_key_env="TEST_KEY", timeout_s=30, concurrency=1, queue=1
    )
    engine = await openai_stt.load("cloud", settings)
    yield engine
    await engine.close()


async def test_an_utterance_goes_up_as_wav_and_comes_back_as_text(
    engine: openai_stt.OpenAiStt, server: OpenAiAudioServer
) -> None:
    heard = await engine.transcribe(SOUND, language="de-AT")
    assert (heard.text, heard.language, heard.confidence) == ("Hello there.", "en", -0.5)
    assert heard.took_ms >= 0 == heard.queued_ms
    (asked,) = server.asked
    assert asked.authorization == "Bearer secret"
    assert asked.fields == {"model": "whisper-1", "response_format": "verbose_json", "language": "de"}
    assert asked.rate_hz == 16_000
    np.testing.assert_array_equal(asked.sound, SOUND)


async def test_auto_asks_for_no_language_and_takes_the_one_heard(
    engine: openai_stt.OpenAiStt, server: OpenAiAudioServer
) -> None:
    server.language = "german"
    assert (await engine.transcribe(SOUND)).language == "de"
    assert "language" not in server.asked[0].fields


async def test_models_without_verbose_answers_are_asked_for_plain_ones(server: OpenAiAudioServer) -> None:
    settings = OpenAiSttSettings(vendor="openai", base_url=server.url, model="gpt-4o-transcribe", api_key_env="NO_KEY")
    engine = await openai_stt.load("cloud", settings)
    heard = await engine.transcribe(SOUND, language="fr")
    await engine.close()
    assert (heard.text, heard.language, heard.confidence) == ("Hello there.", "fr", None)
    assert server.asked[0].fields["response_format"] == "json"
    assert server.asked[0].authorization == "Bearer none"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, ProviderRejected),
        (401, ProviderRejected),
        (403, ProviderRejected),
        (408, ProviderTimeout),
        (429, ProviderBusy),
        (500, ProviderError),
        (503, ProviderBusy),
        (504, ProviderTimeout),
    ],
)
async def test_refusals_are_told_apart_and_not_retried(
    engine: openai_stt.OpenAiStt, server: OpenAiAudioServer, status: int, error: type[ProviderError]
) -> None:
    server.status = status
    with pytest.raises(ProviderError, match=f"cloud: HTTP {status}.*not today") as caught:
        await engine.transcribe(SOUND)
    assert type(caught.value) is error
    assert len(server.asked) == 1


async def test_an_answer_that_is_no_json_is_an_error(engine: openai_stt.OpenAiStt, server: OpenAiAudioServer) -> None:
    server.broken = "no JSON"
    with pytest.raises(ProviderError):
        await engine.transcribe(SOUND)


async def test_silence_is_not_sent(engine: openai_stt.OpenAiStt, server: OpenAiAudioServer) -> None:
    assert (await engine.transcribe(SOUND[:0], language="en")).text == ""
    assert server.asked == []


async def test_a_slow_answer_is_a_timeout(server: OpenAiAudioServer) -> None:
    server.hold.clear()
    settings = OpenAiSttSettings(vendor="openai", base_url=server.url, timeout_s=0.05)
    engine = await openai_stt.load("cloud", settings)
    with pytest.raises(ProviderTimeout):
        await engine.transcribe(SOUND)
    await engine.close()


async def test_a_server_that_is_not_there_is_an_error(free_port: int) -> None:
    settings = OpenAiSttSettings(vendor="openai", base_url=f"http://127.0.0.1:{free_port}/v1")
    engine = await openai_stt.load("cloud", settings)
    with pytest.raises(ProviderError, match="no connection"):
        await engine.transcribe(SOUND)
    await engine.close()


async def test_too_many_at_once_are_refused_and_cancelling_ends_the_request(
    engine: openai_stt.OpenAiStt, server: OpenAiAudioServer
) -> None:
    server.hold.clear()
    inside, waiting = (asyncio.create_task(engine.transcribe(SOUND)) for _ in range(2))
    while not server.asked or engine.depth < 1:  # noqa: ASYNC110 - the server has no event for this
        await asyncio.sleep(0.005)
    with pytest.raises(ProviderBusy):
        await engine.transcribe(SOUND)
    inside.cancel()
    await asyncio.wait_for(server.gone.wait(), 10)
    server.hold.set()
    assert (await waiting).text == "Hello there."


async def test_openai_itself_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(SettingsError, match="OPENAI_API_KEY"):
        await openai_stt.load("cloud", OpenAiSttSettings(vendor="openai"))
