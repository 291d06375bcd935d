"""Which speech engines and language models the dialplans need: loaded once, shared by all calls, warmed.

Owns the choice of what to load, where (in this process, or by the speech workers of the machine), and the order of
warming. Refuses to know how an engine works.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sipserver.agent.history import History
from sipserver.agent.llm import table as llm_table
from sipserver.agent.llm.contract import Llm, Message
from sipserver.agent.llm.shared import SharedLlm
from sipserver.agent.options import Engines
from sipserver.agent.settings import LlamaCppSettings
from sipserver.agent.voice import AudioCache, Key, Voice
from sipserver.api.health import Check
from sipserver.audio.frame import Samples
from sipserver.audio.resample import Resampler
from sipserver.dialplan.book import Book
from sipserver.errors import DialplanError, ProviderRejected
from sipserver.settings import Settings
from sipserver.speech import service
from sipserver.speech.contract import OnProbability, Stt, Tts, VadStream
from sipserver.speech.hosted import Hosted
from sipserver.speech.settings import HOSTED
from sipserver.speech.vendors import openai_client
from sipserver.speech.wire import Wish


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
    """What the plans of a book name. Steps that speak may fall back on every voice that the settings know. Pure."""
    agents = [spec for _plan, _name, spec in book.agents()]
    speaks = any(step.spoken() for plan in book.plans for _flow, _index, step in plan.steps())
    voices = {name for spec in agents for name in (spec.tts.use, *spec.tts.fallback)}
    return Wanted(
        vad=bool(agents),
        stt=frozenset(
            {name for spec in agents for name in spec.stt}
            | {name for plan in book.plans for name in plan.transcribers()}
        ),
        tts=frozenset(known_tts) if speaks else frozenset(voices & set(known_tts)),
        llm=frozenset(name for spec in agents for name in (spec.llm.use, *spec.llm.fallback)),
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """What one way of loading brought."""

    speech: service.Speech
    llm: Mapping[str, Llm] = field(default_factory=dict)


_NOTHING = service.Speech(None, {}, {})


class _OwnCache(AudioCache):
    """Keeps what this process had spoken itself; the speech workers keep what they spoke, once for all processes."""

    def __init__(self, hosted: frozenset[str]) -> None:
        super().__init__()
        self._hosted = hosted

    def put(self, key: Key, samples: Samples) -> None:
        if key[0] not in self._hosted:
            super().put(key, samples)


class EngineRoom:
    """The engines of the process. Loop thread; loading happens on the engines' own threads and processes.

    workers: URIs of the machine's speech workers. With them the engines that run on the machine itself are theirs, and
    only clients of them are here; remote services are asked from here. Without them everything is loaded here.

    `engines` is shared with every call and only ever grows: a name that was loaded stays until `close`.
    """

    def __init__(self, loaded: Settings, workers: Sequence[str] = ()) -> None:
        self._settings = loaded
        self._hosted = Hosted(loaded.speech, workers) if workers else None
        self._speech: list[service.Speech] = []
        self._stt: dict[str, Stt] = {}
        self._tts: dict[str, Tts] = {}
        self._llm: dict[str, Llm] = {}
        self._lock = asyncio.Lock()
        self.engines = Engines(vad=NoVad(), stt=self._stt, tts=self._tts, llm=self._llm)
        self.cache: AudioCache = AudioCache() if self._hosted is None else _OwnCache(self._hosted.tts)

    def unknown(self, book: Book) -> tuple[DialplanError, ...]:
        """Engines that plans name and the settings do not have."""
        return book.unknown_engines(self._settings.speech.stt, self._settings.speech.tts, self._settings.llm)

    async def load(self, book: Book) -> None:
        """Load what the book needs and is not there yet. Raises ModelMissing, ProviderError; then nothing was added.

        A speech worker that does not answer is waited for, but not for ever: its engines are busy until it comes.
        """
        await self.bring(wanted(book, tuple(self._settings.speech.tts)))

    async def bring(self, want: Wanted) -> None:
        """As `load`, for names."""
        async with self._lock:
            loading = [
                asyncio.create_task(self._load_speech(want), name="load speech"),
                asyncio.create_task(self._load_llm(want), name="load models"),
                asyncio.create_task(self._reach_workers(want), name="reach speech workers"),
            ]
            try:
                own, models, hosted = [await task for task in loading]
            except BaseException:
                await self._discard(*await asyncio.gather(*loading, return_exceptions=True))
                raise
            for part in (own, models, hosted):
                self._speech.append(part.speech)
                self._stt.update(part.speech.stt)
                self._tts.update(part.speech.tts)
                self._llm.update(part.llm)
                if part.speech.vad is not None:
                    self.engines.vad = part.speech.vad

    async def _load_speech(self, want: Wanted) -> _Part:
        """What runs in this process."""
        known, elsewhere = self._settings.speech, self._hosted
        speech = await service.load(
            known,
            stt=sorted(want.stt - self._stt.keys() - (elsewhere.stt if elsewhere else frozenset())),
            tts=[name for name in known.tts if name in self._missing_tts(want, hosted=False)],
            vad=want.vad and elsewhere is None and isinstance(self.engines.vad, NoVad),
        )
        return _Part(speech)

    async def _load_llm(self, want: Wanted) -> _Part:
        missing = sorted(want.llm - self._llm.keys() - self._hosted_llm())
        return _Part(_NOTHING, await llm_table.load(self._settings.llm, missing, self._settings.speech.models))

    async def _reach_workers(self, want: Wanted) -> _Part:
        """What the speech workers have."""
        if self._hosted is None:
            return _Part(_NOTHING)
        llm = sorted((want.llm - self._llm.keys()) & self._hosted_llm())
        speech = await self._hosted.load(
            Wish(
                tuple(sorted((want.stt - self._stt.keys()) & self._hosted.stt)),
                tuple(name for name in self._settings.speech.tts if name in self._missing_tts(want, hosted=True)),
                tuple(llm),
                want.vad and isinstance(self.engines.vad, NoVad),
            )
        )
        shared: dict[str, Llm] = {}
        for name in llm:
            settings = self._settings.llm[name]
            assert isinstance(settings, LlamaCppSettings)
            shared[name] = model = SharedLlm(name, settings, self._hosted.locate)
            await model.find()
        return _Part(speech, shared)

    def _missing_tts(self, want: Wanted, *, hosted: bool) -> frozenset[str]:
        missing = want.tts - self._tts.keys()
        elsewhere = self._hosted.tts if self._hosted else frozenset()
        return missing & elsewhere if hosted else missing - elsewhere

    def _hosted_llm(self) -> frozenset[str]:
        if self._hosted is None:
            return frozenset()
        return frozenset(name for name, known in self._settings.llm.items() if isinstance(known, LlamaCppSettings))

    async def warm(self, book: Book) -> None:
        """Synthesise fixed texts and fill the models' prompt caches, so that first calls are as fast as later ones.

        With speech workers this is theirs to do, once a machine, and nothing is done here.
        """
        if self._hosted is not None:
            return
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
        if self._hosted is not None:
            parts += (("vad", frozenset({"silero"} if want.vad else ()), {"silero": self.engines.vad}),)
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
        if self._hosted is not None:
            await self._hosted.close()
        await self._discard(*(_Part(speech) for speech in self._speech), _Part(_NOTHING, self._llm))

    @staticmethod
    async def _discard(*loaded: object) -> None:
        for part in loaded:
            if isinstance(part, _Part):
                await part.speech.close()
                await asyncio.gather(*(llm.close() for llm in part.llm.values()))


def preload(loaded: Settings) -> None:
    """Import what is heavy and will be needed by processes with speech workers. For their parent, before it forks."""
    engines = (*loaded.speech.stt.values(), *loaded.speech.tts.values())
    if loaded.llm or any(engine.vendor == "openai" for engine in engines):
        openai_client.preload()
    if any(not isinstance(engine, HOSTED) for engine in loaded.speech.tts.values()):
        Resampler(24_000)
