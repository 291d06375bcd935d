"""The work of a speech process: has the machine's local engines and serves them to all other processes.

Owns the order: dialplans, detector, sockets, engines, then warming. Refuses to know processes and signals: the fleet's
process table starts and ends it. The first worker of a machine (index 0) has the language models as well.

A worker starts whatever the dialplans say and whichever model is missing, since running calls need the rest of it: what
cannot be loaded is logged here, and raised in the processes that ask for it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sipserver.agent.llm.llama_cpp import LlamaCppLlm
from sipserver.agent.settings import LlamaCppSettings
from sipserver.agent.voice import AudioCache
from sipserver.audio.frame import Samples
from sipserver.dialplan.book import Book
from sipserver.dialplan.watch import Snapshot, Watcher
from sipserver.dialplan.watch import snapshot as snapshot_of
from sipserver.engines import EngineRoom, Wanted, wanted
from sipserver.errors import ConfigError, DialplanError, SipServerError
from sipserver.log import logger
from sipserver.settings import Settings
from sipserver.speech.contract import Stt, Tts
from sipserver.speech.settings import HOSTED
from sipserver.speech.vendors import silero
from sipserver.speech.wire import Wish
from sipserver.speech.worker.judge import Judge
from sipserver.speech.worker.server import SpeechServer

LOOK_S = 1.0
SWITCH_S = 0.0005
"""Voices are judged on a thread that must not wait for the interpreter while another one works on an utterance."""
RECENT_BYTES = 16 * 1024 * 1024
"""Clauses that no dialplan has as a fixed text, kept in case that they are asked for again."""


def uris(loaded: Settings) -> tuple[str, ...]:
    """Where the speech workers of this machine listen, by index; empty when the fleet has none."""
    return tuple(
        f"unix://{loaded.fleet.runtime / f'speech-{index}.sock'}" for index in range(loaded.fleet.speech_workers)
    )


class SpeechWorker:
    """Loop thread. `start`, `run` until the end, `close`. Satisfies `speech.worker.host.Host`.

    listen: where; by default the socket of the index under `fleet.runtime`. snapshot: dialplans that were read before;
    without one the folder is read and watched.
    """

    def __init__(
        self, loaded: Settings, index: int = 0, *, listen: Sequence[str] = (), snapshot: Snapshot | None = None
    ) -> None:
        self._settings = _hosted_part(loaded, with_models=index == 0)
        self._listen = tuple(listen) or (uris(loaded)[index],)
        self._room = EngineRoom(self._settings)
        self._recent = AudioCache(RECENT_BYTES)
        self._snapshot = snapshot
        self._watcher: Watcher | None = None
        self._judge: Judge | None = None
        self._judge_lock = asyncio.Lock()
        self._log = logger("speech", worker=index)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = asyncio.Event()
        self.server = SpeechServer(self)
        self.listening: Sequence[str] = ()

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen and have the engines that the dialplans name, the language models aside: they come while it runs.

        Raises OSError when it cannot listen; then nothing is left behind.
        """
        sys.setswitchinterval(SWITCH_S)
        try:
            book = await self._read()
            want = self._hosted_names(wanted(book, tuple(self._settings.speech.tts)))
            for uri in self._listen:
                if uri.startswith("unix://"):
                    Path(uri.removeprefix("unix://")).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.listening = await self.server.listen(*self._listen)
            await self._load_what_can_be(replace(want, llm=frozenset()))
        except BaseException:
            await self.close()
            raise
        self._start_task(self._adopt(book), "adopt")
        if self._snapshot is None:
            self._start_task(self._watch(), "watch dialplans")
        self._log.info("speech worker serves", uris=list(self.listening), stt=sorted(self.stt), tts=sorted(self.tts))

    async def run(self) -> None:
        """Serve until `close`."""
        await self._closed.wait()

    async def close(self) -> None:
        """Let nobody in, end what runs, unload. Idempotent."""
        self._closed.set()
        await self.server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._room.close()
        judge, self._judge = self._judge, None
        if judge is not None:
            await judge.close()

    async def reload(self) -> None:
        """Read the dialplans again (SIGHUP); a worker that was given a snapshot does so only when told."""
        if self._watcher is not None:
            await self._watcher.reload()

    def depths(self) -> Mapping[str, float]:
        """Work that waits, by engine, and streams that are judged."""
        streams = {"vad.streams": float(self._judge.streams)} if self._judge else {}
        return {**self._room.depths(), **streams, "connections": float(self.server.connections)}

    # --- what sessions ask --------------------------------------------------------------------------------------------

    @property
    def stt(self) -> Mapping[str, Stt]:
        return self._room.engines.stt

    @property
    def tts(self) -> Mapping[str, Tts]:
        return self._room.engines.tts

    @property
    def judge(self) -> Judge | None:
        return self._judge

    async def bring(self, wish: Wish) -> None:
        """Load what a client needs and is not there: a reloaded dialplan may reach a cell first.

        What was begun is finished, although the client may go: the next one wants it as well.
        """
        names = Wanted(wish.vad, frozenset(wish.stt), frozenset(wish.tts), frozenset(wish.llm))
        loading = asyncio.create_task(self._load(self._hosted_names(names)), name="bring")
        self._tasks.add(loading)
        loading.add_done_callback(self._brought)
        await asyncio.shield(loading)

    def model(self, name: str) -> tuple[str, str] | None:
        engine = self._room.engines.llm.get(name)
        return engine.where if isinstance(engine, LlamaCppLlm) else None

    def kept(self, engine: str, voice: str, language: str, text: str) -> Samples | None:
        key = (engine, voice, language, text)
        fixed = self._room.cache.get(key)
        return fixed if fixed is not None else self._recent.get(key)

    def keep(self, engine: str, voice: str, language: str, text: str, samples: Samples) -> None:
        self._recent.put((engine, voice, language, text), samples)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _hosted_names(self, want: Wanted) -> Wanted:
        known = self._settings
        return Wanted(
            want.vad,
            want.stt & known.speech.stt.keys(),
            want.tts & known.speech.tts.keys(),
            want.llm & known.llm.keys(),
        )

    async def _load(self, want: Wanted) -> None:
        if want.vad:
            await self._have_judge()
        await self._room.bring(replace(want, vad=False))

    def _brought(self, task: asyncio.Task[None]) -> None:
        """Whoever asked was told what went wrong, if they are still there."""
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()

    async def _have_judge(self) -> None:
        async with self._judge_lock:
            if self._judge is None:
                self._judge = Judge(await silero.session(self._settings.speech.models))

    def _on_book(self, book: Book) -> None:
        self._start_task(self._adopt(book), "adopt")

    async def _adopt(self, book: Book) -> None:
        """Load what a book names and warm it."""
        await self._load_what_can_be(self._hosted_names(wanted(book, tuple(self._settings.speech.tts))))
        await self._room.warm(book)
        self._log.info("warm", texts=len(self._room.cache))

    async def _load_what_can_be(self, want: Wanted) -> None:
        """One engine after the other, so that one that is missing keeps no other away."""
        for alone in _one_by_one(want):
            try:
                await self._load(alone)
            except SipServerError as problem:
                self._log.error("an engine cannot be loaded", error=str(problem))

    async def _read(self) -> Book:
        """The dialplans as far as they are right."""
        taken, most_agents = self._snapshot, self._settings.most_agents
        if taken is None:
            try:
                folder = self._settings.dialplans
                taken = await asyncio.to_thread(snapshot_of, folder, strict=False, most_agents=most_agents)
            except DialplanError as problem:
                self._on_problem(problem)
                taken = Snapshot(Book(), {})
        self._watcher = Watcher(
            self._settings.dialplans,
            on_change=self._on_book,
            on_problem=self._on_problem,
            snapshot=taken,
            most_agents=most_agents,
        )
        return await self._watcher.start()

    async def _watch(self) -> None:
        while self._watcher is not None:
            await asyncio.sleep(LOOK_S)
            await self._watcher.refresh()

    def _on_problem(self, problem: ConfigError) -> None:
        self._log.error("dialplan refused", file=problem.file, line=problem.line, error=str(problem))

    def _start_task(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            self._log.error("a task of the speech worker broke", task=task.get_name(), exc_info=problem)


def _one_by_one(want: Wanted) -> Iterator[Wanted]:
    none: frozenset[str] = frozenset()
    if want.vad:
        yield Wanted(True, none, none, none)
    yield from (Wanted(False, frozenset({name}), none, none) for name in sorted(want.stt))
    yield from (Wanted(False, none, frozenset({name}), none) for name in sorted(want.tts))
    yield from (Wanted(False, none, none, frozenset({name})) for name in sorted(want.llm))


def _hosted_part(loaded: Settings, *, with_models: bool) -> Settings:
    """The settings with nothing but what a speech worker has."""
    speech = loaded.speech
    stt = {name: known for name, known in speech.stt.items() if isinstance(known, HOSTED)}
    tts = {name: known for name, known in speech.tts.items() if isinstance(known, HOSTED)}
    llm = {name: known for name, known in loaded.llm.items() if with_models and isinstance(known, LlamaCppSettings)}
    return loaded.model_copy(update={"speech": speech.model_copy(update={"stt": stt, "tts": tts}), "llm": llm})
