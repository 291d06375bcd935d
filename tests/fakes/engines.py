"""Speech and language engines that do what a script says, in whatever time the loop has."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

import numpy as np

from sipserver.agent.llm.contract import (
    Delta,
    Finished,
    LlmCapabilities,
    Message,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolSpec,
)
from sipserver.audio.frame import RATE_HZ, Frame, Samples
from sipserver.speech.contract import OnProbability, SttCapabilities, Transcription, TtsCapabilities

LOUD = 8_000


def loud(duration_ms: int) -> Samples:
    """A square wave that every level meter takes for sound."""
    return np.where(np.arange(duration_ms * RATE_HZ // 1000) % 40 < 20, LOUD, -LOUD).astype(np.int16)


class FakeVadStream:
    """Takes energy for speech: 0.95 for a chunk that is loud in its last half, 0.02 for any other."""

    CHUNK = 512

    def __init__(self, on_probability: OnProbability) -> None:
        self._on_probability = on_probability
        self._rest = np.zeros(0, np.int16)
        self.closed = False

    def hear(self, frame: Frame) -> None:
        self._rest = np.concatenate((self._rest, frame.samples))
        while len(self._rest) >= self.CHUNK and not self.closed:
            chunk, self._rest = self._rest[: self.CHUNK], self._rest[self.CHUNK :]
            heard = int(np.abs(chunk[self.CHUNK // 2 :].astype(np.int32)).max()) > LOUD // 2
            self._on_probability(0.95 if heard else 0.02, frame.at_ns)

    def close(self) -> None:
        self.closed = True


class FakeVad:
    name = "fake-vad"

    def __init__(self) -> None:
        self.streams: list[FakeVadStream] = []

    def stream(self, on_probability: OnProbability) -> FakeVadStream:
        self.streams.append(FakeVadStream(on_probability))
        return self.streams[-1]

    async def close(self) -> None:
        for stream in self.streams:
            stream.close()


class FakeStt:
    """Answers with the texts in order, the last one again and again; an exception is raised, a float is slept."""

    def __init__(
        self,
        *texts: str | Exception,
        name: str = "stt",
        delay_s: float = 0.08,
        languages: frozenset[str] | None = None,
        detected: str = "en",
    ) -> None:
        self._texts = deque(texts or ("hello",))
        self.name, self.delay_s, self.detected = name, delay_s, detected
        self.capabilities = SttCapabilities(languages, detects_language=True, local=True)
        self.asked: list[tuple[int, str, bool]] = []
        """(milliseconds of audio, language, speculative) of every request."""
        self.cancelled = 0

    async def transcribe(self, samples: Samples, *, language: str = "auto", speculative: bool = False) -> Transcription:
        self.asked.append((len(samples) * 1000 // RATE_HZ, language, speculative))
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        text = self._texts.popleft() if len(self._texts) > 1 else self._texts[0]
        if isinstance(text, Exception):
            raise text
        spoken = self.detected if language == "auto" else language
        return Transcription(text, spoken, None, 0, round(self.delay_s * 1000))

    async def close(self) -> None:
        pass


class FakeTts:
    """Speaks 60 ms a character in chunks of 200 ms. error: raised before the first or after `dies_after` chunks."""

    def __init__(
        self,
        *,
        name: str = "tts",
        delay_s: float = 0.05,
        languages: frozenset[str] | None = frozenset({"en"}),
        voices: tuple[str, ...] | None = None,
        error: Exception | None = None,
        dies_after: int = 0,
        silent: bool = False,
    ) -> None:
        self.name, self.delay_s = name, delay_s
        self.error, self.dies_after, self.silent = error, dies_after, silent
        self.capabilities = TtsCapabilities(languages, voices, streaming=True, local=True)
        self.spoken: list[tuple[str, str, str]] = []
        """(text, voice, language) of every request."""

    async def synthesise(self, text: str, *, voice: str = "", language: str = "en") -> AsyncIterator[Samples]:
        self.spoken.append((text, voice, language))
        await asyncio.sleep(self.delay_s)
        for number, _ in enumerate(range(0, max(1, len(text) * 60 // 200))):
            if self.error is not None and number >= self.dies_after:
                raise self.error
            yield np.zeros(RATE_HZ // 5, np.int16) if self.silent else loud(200)

    async def close(self) -> None:
        pass


Part = str | ToolCall | Exception | float
Answer = Sequence[Part]


class FakeLlm:
    """Plays one answer a request, the last one for ever: words are sent as tokens, a float is a delay in seconds."""

    def __init__(
        self,
        *answers: Answer | Callable[[Sequence[Message]], Answer],
        name: str = "llm",
        tools: bool = True,
        token_s: float = 0.01,
    ) -> None:
        self._answers = deque(answers or (["I can help you with that."],))
        self.name, self._token_s = name, token_s
        self.capabilities = LlmCapabilities(tools=tools, local=True)
        self.asked: list[tuple[list[Message], tuple[str, ...]]] = []
        """(messages, names of the tools offered) of every request."""
        self.cancelled = 0

    async def stream(
        self, messages: Sequence[Message], *, tools: Sequence[ToolSpec] = (), max_tokens: int = 160
    ) -> AsyncIterator[Delta]:
        self.asked.append((list(messages), tuple(tool.name for tool in tools)))
        answer = self._answers.popleft() if len(self._answers) > 1 else self._answers[0]
        parts = answer(messages) if callable(answer) else answer
        reason = "stop"
        try:
            for part in parts:
                if isinstance(part, Exception):
                    raise part
                if isinstance(part, float):
                    await asyncio.sleep(part)
                elif isinstance(part, ToolCall):
                    reason = "tool_calls"
                    yield ToolCallDelta(part)
                else:
                    for token in _tokens(part):
                        await asyncio.sleep(self._token_s)
                        yield TextDelta(token)
            yield Finished(reason, 10, 5)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise

    async def warm(self, messages: Sequence[Message]) -> None:
        pass

    async def close(self) -> None:
        pass


def call(name: str, **arguments: object) -> ToolCall:
    return ToolCall(f"call-{name}", name, json.dumps(arguments))


def _tokens(text: str) -> Iterable[str]:
    words = text.split(" ")
    return (word if index == 0 else " " + word for index, word in enumerate(words))
