"""The contracts of voice activity detection, speech-to-text and text-to-speech, with capabilities as data.

One engine instance serves all calls of a process. Work is queued with a bound (`errors.ProviderBusy` beyond it), runs
on the engine's own threads, and never blocks the loop. All methods belong to the loop thread.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from sipserver.audio.frame import Frame, Samples


@dataclass(frozen=True, slots=True)
class SttCapabilities:
    """languages: BCP 47 primary tags it understands; None: any. detects_language: `auto` is allowed. vendor, model: for
    the bill; empty where the name of the engine says all.
    """

    languages: frozenset[str] | None
    detects_language: bool
    local: bool
    vendor: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Transcription:
    """text: as written by the engine, stripped; empty when it judged the sound to be no speech.

    language: the primary tag spoken (given or detected). confidence: average log-probability a token where the engine
    has one. queued_ms: waited for the engine. took_ms: worked.
    """

    text: str
    language: str
    confidence: float | None
    queued_ms: int
    took_ms: int


class Stt(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def capabilities(self) -> SttCapabilities: ...

    async def transcribe(self, samples: Samples, *, language: str = "auto", speculative: bool = False) -> Transcription:
        """Transcribe one utterance of up to 30 s (16 kHz mono int16).

        speculative work yields to other work in the queue. Safe to cancel: what was not begun is dropped.
        Raises ProviderBusy, ProviderTimeout, ProviderRejected.
        """
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class TtsCapabilities:
    """languages: primary tags that it can speak; None: any. voices: names that `voice` accepts; None: any. vendor,
    model: as in SttCapabilities.
    """

    languages: frozenset[str] | None
    voices: tuple[str, ...] | None
    streaming: bool
    local: bool
    vendor: str = ""
    model: str = ""


class Tts(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def capabilities(self) -> TtsCapabilities: ...

    def synthesise(self, text: str, *, voice: str = "", language: str = "en") -> AsyncIterator[Samples]:
        """Speak one clause: 16 kHz mono int16 chunks of any length, the first as early as the engine can.

        An empty voice means the engine's default for the language. Closing the iterator abandons the rest.
        Raises ProviderBusy, ProviderTimeout, ProviderRejected.
        """
        ...

    async def close(self) -> None: ...


OnProbability = Callable[[float, int], None]
"""(probability of speech in the last 32 ms, monotonic ns of the end of that chunk). Called on the loop, in order."""


class VadStream(Protocol):
    """The voice activity of one call."""

    def hear(self, frame: Frame) -> None:
        """Loop thread, once per 20 ms; only copies."""
        ...

    def close(self) -> None:
        """No callback comes after this."""
        ...


class Vad(Protocol):
    @property
    def name(self) -> str: ...

    def stream(self, on_probability: OnProbability) -> VadStream:
        """Open a stream. Every 32 ms chunk is judged; what is ready of all open streams is judged as one batch."""
        ...

    async def close(self) -> None: ...
