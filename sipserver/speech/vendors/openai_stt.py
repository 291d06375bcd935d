"""Speech-to-text by any server with OpenAI's `POST /audio/transcriptions`: OpenAI, Groq, speaches, LocalAI, vLLM.

API: https://platform.openai.com/docs/api-reference/audio/createTranscription. An utterance goes up as a WAV file.
"""

from __future__ import annotations

import asyncio
import io
import time
import wave
from typing import TYPE_CHECKING, Any

from sipserver.audio.frame import RATE_HZ, Samples
from sipserver.errors import ProviderError, ProviderTimeout
from sipserver.speech import languages
from sipserver.speech.contract import SttCapabilities, Transcription
from sipserver.speech.gate import Gate
from sipserver.speech.settings import OpenAiSttSettings
from sipserver.speech.vendors.openai_client import connect, errors_in_our_words

if TYPE_CHECKING:
    from openai import AsyncOpenAI


class OpenAiStt:
    """Satisfies `contract.Stt`."""

    def __init__(self, name: str, client: AsyncOpenAI, settings: OpenAiSttSettings) -> None:
        self.name = name
        self.capabilities = SttCapabilities(
            None, detects_language=True, local=False, vendor="openai", model=settings.model
        )
        self._client, self._settings = client, settings
        self.gate = Gate(name, at_once=settings.concurrency, bound=settings.queue, timeout_s=settings.timeout_s)

    @property
    def depth(self) -> int:
        return self.gate.depth

    async def transcribe(self, samples: Samples, *, language: str = "auto", speculative: bool = False) -> Transcription:
        tag = languages.primary(language)
        if not len(samples):
            return Transcription("", tag, None, 0, 0)
        async with self.gate.passage(speculative=speculative) as queued_ms:
            began_at = time.monotonic()
            try:
                async with asyncio.timeout(self._settings.timeout_s):
                    answer = await self._ask(samples, tag)
            except TimeoutError as problem:
                limit_s = self._settings.timeout_s
                raise ProviderTimeout(self.name, f"no answer within {limit_s:g} s") from problem
            took_ms = round((time.monotonic() - began_at) * 1000)
        heard = languages.of_name(answer.get("language") or tag)
        return Transcription(answer["text"].strip(), heard, _confidence(answer), queued_ms, took_ms)

    async def close(self) -> None:
        await self._client.close()

    async def _ask(self, samples: Samples, tag: str) -> dict[str, Any]:
        given: dict[str, Any] = {} if tag == languages.AUTO else {"language": tag}
        with errors_in_our_words(self.name):
            answer = await self._client.audio.transcriptions.create(
                file=("utterance.wav", as_wav(samples), "audio/wav"),
                model=self._settings.model,
                response_format="json" if "transcribe" in self._settings.model else "verbose_json",
                **given,
            )
        fields: dict[str, Any] = answer.model_dump()
        if not isinstance(fields.get("text"), str):
            raise ProviderError(self.name, "not understood: the answer holds no text")
        return fields


def as_wav(samples: Samples) -> bytes:
    """16 kHz mono 16 bit RIFF."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()


def _confidence(answer: dict[str, Any]) -> float | None:
    """The average log-probability of the segments, which only `verbose_json` has."""
    scores = [segment["avg_logprob"] for segment in answer.get("segments") or () if "avg_logprob" in segment]
    return sum(scores) / len(scores) if scores else None


async def load(name: str, settings: OpenAiSttSettings) -> OpenAiStt:
    """Sends nothing. Raises SettingsError if OpenAI itself is meant and the key is not set."""
    client = await asyncio.to_thread(connect, name, settings.base_url, settings.api_key_env, settings.timeout_s)
    return OpenAiStt(name, client, settings)
