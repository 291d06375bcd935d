"""Which speech engines and language models the dialplans need: loaded once, shared by all calls, warmed.

Owns the choice of what to load and the order of warming. Refuses to know how an engine works.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sipserver.agent.history import History
from sipserver.agent.llm import table as llm_table
from sipserver.agent.llm.contract import Llm, Message
from sipserver.agent.options import Engines
from sipserver.agent.voice import AudioCache, Voice
from sipserver.api.health import Check
from sipserver.dialplan.book import Book
from sipserver.dialplan.steps import Collect, Say
from sipserver.errors import DialplanError, ProviderRejected
from sipserver.settings import Settings
from sipserver.speech import service
from sipserver.speech.contract import OnProbability, Stt, Tts, VadStream


class NoVad:
    """Stands where the detector will be, as long as no dialplan has an agent."""

    name = "none"
    depth = 0

    def stream(self, on_probability: OnProbability) -> VadStream:
        raise ProviderRejected("vad", "no voice activity detector is loaded")

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """Names of engines. vad: an agent needs to know when somebody speaks."""

    vad: bool
    stt: frozenset[str]
    tts: frozenset[str]
    llm: frozenset[str]


def wanted(book: Book, known_tts: Sequence[str]) -> Wanted:
    """What the plans of a book name. A `say` may fall back on every voice that the settings know. Pure."""
    agents = [spec for _plan, _name, spec in book.agents()]
    speaks = any(
        isinstance(step, Say) or (isinstance(step, Collect) and step.say)
        for plan in book.plans
        for _flow, _index, step in plan.steps()
    )
    voices = {name for spec in agents for name in (spec.tts.use, *spec.tts.fallback)}
    return Wanted(
        vad=bool(agents),
        stt=frozenset(name for spec in agents for name in spec.stt),
        tts=frozenset(known_tts) if speaks else frozenset(voices & set(known_tts)),
        llm=frozenset(name for spec in agents for name in (spec.llm.use, *spec.llm.fallback)),
    )


class EngineRoom:
    """The engines of the process. Loop thread; loading happens on the engines' own threads and processes.

    `engines` is shared with every call and only ever grows: a name that was loaded stays until `close`.
    """

    def __init__(self, loaded: Settings) -> None:
        self._settings = loaded
        self._speech: list[service.Speech] = []
        self._stt: dict[str, Stt] = {}
        self._tts: dict[str, Tts] = {}
        self._llm: dict[str, Llm] = {}
        self._lock = asyncio.Lock()
        self.engines = Engines(vad=NoVad(), stt=self._stt, tts=self._tts, llm=self._llm)
        self.cache = AudioCache()

    def unknown(self, book: Book) -> tuple[DialplanError, ...]:
        """Engines that plans name and the settings do not have."""
        return book.unknown_engines(self._settings.speech.stt, self._settings.speech.tts, self._settings.llm)

    async def load(self, book: Book) -> None:
        """Load what the book needs and is not there yet. Raises ModelMissing, ProviderError; then nothing was added."""
        want = wanted(book, tuple(self._settings.speech.tts))
        async with self._lock:
            speech_loading = asyncio.create_task(self._load_speech(want), name="load speech")
            llm_loading = asyncio.create_task(self._load_llm(want), name="load models")
            try:
                speech, llm = await speech_loading, await llm_loading
            except BaseException:
                await self._discard(*await asyncio.gather(speech_loading, llm_loading, return_exceptions=True))
                raise
            self._speech.append(speech)
            self._stt.update(speech.stt)
            self._tts.update(speech.tts)
            self._llm.update(llm)
            if speech.vad is not None:
                self.engines.vad = speech.vad

    async def _load_speech(self, want: Wanted) -> service.Speech:
        known = self._settings.speech
        return await service.load(
            known,
            stt=sorted(want.stt - self._stt.keys()),
            tts=[name for name in known.tts if name in want.tts - self._tts.keys()],
            vad=want.vad and isinstance(self.engines.vad, NoVad),
        )

    async def _load_llm(self, want: Wanted) -> dict[str, Llm]:
        missing = sorted(want.llm - self._llm.keys())
        return await llm_table.load(self._settings.llm, missing, self._settings.speech.models)

    async def warm(self, book: Book) -> None:
        """Synthesise fixed texts and fill the models' prompt caches, so that first calls are as fast as later ones."""
        warmed: set[tuple[str, tuple[Message, ...]]] = set()
        for _plan, _name, spec in book.agents():
            prompt = tuple(History(spec.prompt, spec.examples).prompt())
            for name in (spec.llm.use, *spec.llm.fallback):
                if name in self._llm and (name, prompt) not in warmed:
                    warmed.add((name, prompt))
                    await self._llm[name].warm(prompt)
        voice = Voice(self._tts, lambda _event: None, self.cache)
        for text in book.texts():
            await voice.prepare(text.text, chain=text.tts or tuple(self._tts), voice=text.voice, language=text.language)

    def checks(self, book: Book) -> Sequence[Check]:
        """One check for every engine that the book's agents use."""
        want = wanted(book, tuple(self._settings.speech.tts))
        parts: tuple[tuple[str, frozenset[str], Mapping[str, object]], ...] = (
            ("stt", want.stt, self._stt),
            ("tts", want.tts, self._tts),
            ("llm", want.llm, self._llm),
        )
        return [
            Check(f"{part}.{name}", getattr(there.get(name), "ready", name in there), "not loaded, or being restarted")
            for part, names, there in parts
            for name in sorted(names)
        ]

    def depths(self) -> Mapping[str, float]:
        """Entries waiting, by engine."""
        return {f"{part}.{name}": depth for speech in self._speech for (part, name), depth in speech.depths().items()}

    async def close(self) -> None:
        """Stop every engine's threads and processes."""
        await self._discard(*self._speech, self._llm)

    @staticmethod
    async def _discard(*loaded: object) -> None:
        for part in loaded:
            if isinstance(part, service.Speech):
                await part.close()
            elif isinstance(part, dict):
                await asyncio.gather(*(llm.close() for llm in part.values()))
