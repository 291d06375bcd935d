"""Sound to text: the STT chain with its timeouts. Owns failover; refuses to know turns."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sipserver.agent.chain import Chain, Clock, milliseconds
from sipserver.audio.frame import RATE_HZ, Samples
from sipserver.errors import ProviderError, ProviderRejected, ProviderTimeout
from sipserver.events import Emit, EngineUsed, ProviderFailed, Transcript
from sipserver.speech.contract import Stt

_SOUNDS = re.compile(r"\[[^\]]*\]|\([^)]*\)|\*[^*]*\*|[♪♫]")
"""How engines trained on subtitles write what is no speech: `(coughing)`, `[BLANK_AUDIO]`, `*sighs*`."""


def spoken(text: str) -> str:
    """The words in a transcript; empty when there are none."""
    said = " ".join(_SOUNDS.sub(" ", text).split())
    return said if any(character.isalnum() for character in said) else ""


@dataclass(frozen=True, slots=True)
class Heard:
    """What the caller said. language: a primary tag. waited_ms: from asking to the answer, failed engines included."""

    text: str
    language: str
    engine: str = ""
    audio_ms: int = 0
    queued_ms: int = 0
    took_ms: int = 0
    waited_ms: int = 0
    confidence: float | None = None

    def event(self, *, final: bool) -> Transcript:
        return Transcript(
            self.text,
            final,
            self.engine,
            self.language,
            self.audio_ms,
            self.queued_ms,
            self.took_ms,
            self.confidence,
        )


class Transcriber:
    """The ears' engines for one call. Loop thread."""

    def __init__(
        self,
        engines: Mapping[str, Stt],
        chain: Sequence[str],
        language: str,
        timeout_s: float,
        emit: Emit,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        self._engines, self._chain, self._language = engines, chain, language
        self._timeout_s, self._emit, self._clock = timeout_s, emit, clock
        self._health = Chain(clock)

    async def transcribe(self, samples: Samples, *, speculative: bool = False) -> Heard:
        """Transcribe one utterance. Safe to cancel. Raises the last engine's ProviderError."""
        started = self._clock()
        engines = self._order()
        if not engines:
            raise ProviderRejected(", ".join(self._chain) or "stt", "no such engine")
        for engine, following in zip(engines, [*engines[1:], None], strict=True):
            try:
                async with asyncio.timeout(self._timeout_s):
                    answer = await engine.transcribe(
                        samples, language=self._language_for(engine), speculative=speculative
                    )
            except (ProviderError, TimeoutError) as problem:
                error = (
                    problem
                    if isinstance(problem, ProviderError)
                    else ProviderTimeout(engine.name, f"no transcript within {self._timeout_s:g} s")
                )
                if isinstance(error, ProviderTimeout):
                    self._used(engine, samples)
                self._health.failed(engine.name)
                self._emit(ProviderFailed("stt", engine.name, error.reason, following.name if following else ""))
                if following is None:
                    raise error from problem
            except asyncio.CancelledError:
                self._used(engine, samples)
                raise
            else:
                self._used(engine, samples)
                self._health.worked(engine.name)
                return Heard(
                    spoken(answer.text),
                    answer.language,
                    engine.name,
                    len(samples) * 1000 // RATE_HZ,
                    answer.queued_ms,
                    answer.took_ms,
                    milliseconds(self._clock() - started),
                    answer.confidence,
                )
        raise AssertionError("the last engine answers or raises")

    def _used(self, engine: Stt, samples: Samples) -> None:
        """The engine has the sound, also when nobody waits for what it makes of it."""
        known = engine.capabilities
        self._emit(EngineUsed("stt", len(samples) * 1000 // RATE_HZ, engine.name, known.vendor, known.model))

    def _order(self) -> list[Stt]:
        engines = [self._engines[name] for name in self._health.order(self._chain) if name in self._engines]
        return sorted(engines, key=lambda engine: not self._understands(engine))

    def _understands(self, engine: Stt) -> bool:
        known = engine.capabilities
        if self._language == "auto":
            return known.detects_language
        return known.languages is None or self._language in known.languages

    def _language_for(self, engine: Stt) -> str:
        if self._understands(engine):
            return self._language
        known = engine.capabilities
        return "auto" if known.detects_language else min(known.languages or {"en"})
