"""Text to sound: the TTS chain, the cache of fixed texts, and `say`, which dialplan steps and the conversation share.

Owns failover and levels: an engine that answers with silence has failed as surely as one that raises. Leading silence
is cut, since the caller waits through it. Refuses to know turns and calls.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence

import numpy as np

from sipserver.agent.chain import Chain, Clock, milliseconds
from sipserver.agent.clauses import sentences
from sipserver.agent.iterators import closing, next_within
from sipserver.agent.saying import Saying
from sipserver.audio.frame import RATE_HZ, Samples
from sipserver.audio.playout import Playout
from sipserver.errors import ProviderError, ProviderRejected, ProviderTimeout
from sipserver.events import ClauseSynthesised, Emit, EngineUsed, ProviderFailed, Spoken, WatchdogFired
from sipserver.speech.contract import Tts

_LOUD = 150
"""A sample beyond this is sound (-47 dBFS); nothing an engine speaks stays below it."""
_KEPT_BEFORE_SOUND = RATE_HZ // 100
_LOCALE = re.compile(r"^([a-z]{2,3})[_-][A-Z]{2}")

Key = tuple[str, str, str, str]


class AudioCache:
    """Sound of fixed texts by (engine, voice, language, text), shared by all calls of a process. Loop thread.

    Bound: bytes; the texts not used for longest leave first. What exceeds a quarter of the bound is not kept at all.
    """

    def __init__(self, max_bytes: int = 32 * 1024 * 1024) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[Key, Samples] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key) -> Samples | None:
        samples = self._kept.get(key)
        if samples is not None:
            self._kept.move_to_end(key)
        return samples

    def put(self, key: Key, samples: Samples) -> None:
        if samples.nbytes > self._max_bytes // 4:
            return
        old = self._kept.pop(key, None)
        self.size_bytes += samples.nbytes - (old.nbytes if old is not None else 0)
        self._kept[key] = samples
        while self.size_bytes > self._max_bytes:
            self.size_bytes -= self._kept.popitem(last=False)[1].nbytes


def voice_language(voice: str) -> str:
    """The primary tag in a voice's name (`de_DE-thorsten-medium` is `de`); empty when it names none."""
    found = _LOCALE.match(voice)
    return found[1] if found else ""


def loud_from(samples: Samples) -> int | None:
    """Index of the first sample that is sound, None for silence."""
    loud = np.flatnonzero((samples > _LOUD) | (samples < -_LOUD))
    return int(loud[0]) if len(loud) else None


class Voice:
    """The voices of one call. Loop thread; engines and cache are shared with the other calls.

    timeout_s: how long an engine may take to the first sound and between two chunks before the next one is asked. The
    caller has to hear something within 3 s, so it leaves the next one some time.
    """

    def __init__(
        self,
        engines: Mapping[str, Tts],
        emit: Emit,
        cache: AudioCache,
        *,
        timeout_s: float = 2.0,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        self._engines, self._emit, self._cache = engines, emit, cache
        self._timeout_s, self._clock = timeout_s, clock
        self._health = Chain(clock)

    async def say(
        self,
        text: str,
        playout: Playout,
        *,
        chain: Sequence[str],
        voice: str = "",
        language: str = "en",
        cacheable: bool = True,
    ) -> Spoken:
        """Speak a text and wait until it was heard. Returns what was heard (each sentence has its own event).

        Safe to cancel: the playout is flushed, and what was heard until then is emitted. Raises ProviderError when no
        engine of the chain could speak it.
        """
        saying = Saying(playout, self._emit)
        try:
            for sentence in sentences(text):
                chunks = self.synthesise(sentence, chain=chain, voice=voice, language=language, cacheable=cacheable)
                async with closing(chunks):
                    await saying.add(sentence, chunks)
            await saying.finished()
        except BaseException:
            saying.cut()
            await saying.finished()
            raise
        return saying.summary()

    async def prepare(self, text: str, *, chain: Sequence[str], voice: str = "", language: str = "en") -> bool:
        """Put a fixed text into the cache. False when no engine could speak it; does not raise ProviderError."""
        try:
            for sentence in sentences(text):
                if self._kept(self._order(chain, language), sentence, voice, language) is not None:
                    continue
                async for _ in self.synthesise(sentence, chain=chain, voice=voice, language=language, cacheable=True):
                    pass
        except ProviderError:
            return False
        return True

    def speaks(self, language: str, chain: Sequence[str]) -> bool:
        """True if an engine of the chain has this language."""
        return any(
            (known := engine.capabilities.languages) is None or language in known
            for engine in map(self._engines.get, chain)
            if engine is not None
        )

    async def synthesise(
        self, text: str, *, chain: Sequence[str], voice: str = "", language: str = "en", cacheable: bool = False
    ) -> AsyncIterator[Samples]:
        """The sound of one clause, by the first engine of the chain that can. Close the iterator to abandon the rest.

        An engine that fails in the middle is followed by one that speaks the clause from its beginning.
        Raises the last engine's ProviderError.
        """
        engines = self._order(chain, language)
        if cacheable:
            found = self._kept(engines, text, voice, language)
            if found is not None:
                engine, kept = found
                audio_ms = len(kept) * 1000 // RATE_HZ
                self._emit(ClauseSynthesised(text, engine.name, voice, cached=True, audio_ms=audio_ms))
                yield kept
                return
        for engine, following in zip(engines, [*engines[1:], None], strict=True):
            try:
                async with closing(self._speak(engine, text, voice, language, cacheable)) as chunks:
                    async for samples in chunks:
                        yield samples
            except ProviderError as error:
                self._health.failed(engine.name)
                following_name = following.name if following else ""
                self._emit(ProviderFailed("tts", engine.name, error.reason, following_name))
                if following is None:
                    raise
            else:
                self._health.worked(engine.name)
                return

    def _kept(self, engines: Sequence[Tts], text: str, voice: str, language: str) -> tuple[Tts, Samples] | None:
        for engine in engines:
            kept = self._cache.get((engine.name, self._voice(engine, voice, language), language, text))
            if kept is not None:
                return engine, kept
        return None

    async def _speak(
        self, engine: Tts, text: str, voice: str, language: str, cacheable: bool
    ) -> AsyncIterator[Samples]:
        name = self._voice(engine, voice, language)
        started = self._clock()
        first_ns: int | None = None
        kept: list[Samples] = []
        audio = 0
        refused = False
        try:
            async with closing(engine.synthesise(text, voice=name, language=language)) as chunks:
                while (samples := await self._next(engine, chunks)) is not None:
                    if first_ns is None:
                        loud = loud_from(samples)
                        if loud is None:
                            continue
                        samples = samples[max(0, loud - _KEPT_BEFORE_SOUND) :]
                        first_ns = self._clock() - started
                    audio += len(samples)
                    if cacheable:
                        kept.append(samples)
                    yield samples
        except ProviderError as error:
            refused = first_ns is None and not isinstance(error, ProviderTimeout)
            raise
        finally:
            if not refused:  # it has the text, also when nobody waits for the sound
                known = engine.capabilities
                self._emit(EngineUsed("tts", len(text), engine.name, known.vendor, known.model))
        if first_ns is None:
            self._emit(WatchdogFired("agent_silent", "fallback"))
            raise ProviderError(engine.name, "answered with silence")
        if cacheable:
            self._cache.put((engine.name, name, language, text), np.concatenate(kept))
        took_ms, audio_ms = milliseconds(self._clock() - started), audio * 1000 // RATE_HZ
        self._emit(ClauseSynthesised(text, engine.name, name, False, milliseconds(first_ns), took_ms, audio_ms))

    async def _next(self, engine: Tts, chunks: AsyncIterator[Samples]) -> Samples | None:
        try:
            return await next_within(chunks, self._timeout_s)
        except TimeoutError as error:
            raise ProviderTimeout(engine.name, f"no sound within {self._timeout_s:g} s") from error

    def _order(self, chain: Sequence[str], language: str) -> list[Tts]:
        """Well engines that speak the language first; those that do not are better than nothing."""
        engines = [self._engines[name] for name in self._health.order(chain) if name in self._engines]
        if not engines:
            raise ProviderRejected(", ".join(chain) or "tts", "no such engine")
        return sorted(
            engines,
            key=lambda engine: (
                engine.capabilities.languages is not None and language not in engine.capabilities.languages
            ),
        )

    @staticmethod
    def _voice(engine: Tts, voice: str, language: str) -> str:
        """The voice if the engine has it and it speaks the language, else the engine's own choice."""
        if engine.capabilities.voices is not None and voice not in engine.capabilities.voices:
            return ""
        return voice if voice_language(voice) in {"", language} else ""
