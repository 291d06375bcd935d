"""Text-to-speech by any server with OpenAI's `POST /audio/speech`: OpenAI, speaches, Kokoro-FastAPI, LocalAI.

API: https://platform.openai.com/docs/api-reference/audio/createSpeech. The answer is asked for as `pcm` (24 kHz, 16 bit
little-endian, mono, no header) and passed on while it arrives.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING

import numpy as np

from sipserver.audio.frame import Samples
from sipserver.audio.resample import Resampler
from sipserver.errors import ProviderTimeout
from sipserver.speech.contract import TtsCapabilities
from sipserver.speech.gate import Gate
from sipserver.speech.settings import OpenAiTtsSettings
from sipserver.speech.vendors.openai_client import connect, errors_in_our_words

if TYPE_CHECKING:
    from openai import AsyncOpenAI

PCM_HZ = 24_000


class OpenAiTts:
    """Satisfies `contract.Tts`. The service guesses the language from the text."""

    def __init__(self, name: str, client: AsyncOpenAI, settings: OpenAiTtsSettings) -> None:
        self.name = name
        self.capabilities = TtsCapabilities(
            None, None, streaming=True, local=False, vendor="openai", model=settings.model
        )
        self._client, self._settings = client, settings
        self.gate = Gate(name, at_once=settings.concurrency, bound=settings.queue, timeout_s=settings.timeout_s)

    @property
    def depth(self) -> int:
        return self.gate.depth

    async def synthesise(self, text: str, *, voice: str = "", language: str = "en") -> AsyncGenerator[Samples, None]:
        if not text.strip():
            return
        resampler = Resampler(PCM_HZ)
        odd = b""
        async with self.gate.passage():
            stream = self._payloads(text, voice or self._settings.voice)
            try:
                while payload := await self._next(stream):
                    payload = odd + payload
                    whole = len(payload) & ~1
                    odd = payload[whole:]
                    samples = resampler.convert(np.frombuffer(payload[:whole], "<i2"))
                    if len(samples):
                        yield samples
            finally:
                await stream.aclose()
        if len(rest := resampler.flush()):
            yield rest

    async def close(self) -> None:
        await self._client.close()

    async def _next(self, stream: AsyncIterator[bytes]) -> bytes:
        """The next payload, empty at the end. The limit holds for every wait, not for the whole clause."""
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return await anext(stream, b"")
        except TimeoutError as problem:
            raise ProviderTimeout(self.name, f"no sound within {self._settings.timeout_s:g} s") from problem

    async def _payloads(self, text: str, voice: str) -> AsyncGenerator[bytes, None]:
        with errors_in_our_words(self.name):
            async with self._client.audio.speech.with_streaming_response.create(
                input=text, model=self._settings.model, voice=voice, response_format="pcm"
            ) as answer:
                async for payload in answer.iter_bytes():
                    if payload:
                        yield payload


async def load(name: str, settings: OpenAiTtsSettings) -> OpenAiTts:
    """Sends nothing. Raises SettingsError if OpenAI itself is meant and the key is not set."""
    client = await asyncio.to_thread(connect, name, settings.base_url, settings.api_key_env, settings.timeout_s)
    return OpenAiTts(name, client, settings)
