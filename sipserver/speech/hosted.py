"""The engines that the speech workers of this machine have, as any other process of it sees them: clients.

Owns the way to the workers and what is known of their engines. Refuses to hold a model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from wyoming.event import Event

from sipserver.errors import ConfigError, ProviderError, SipServerError
from sipserver.log import logger
from sipserver.speech import wire
from sipserver.speech.peers import Peers
from sipserver.speech.service import Speech
from sipserver.speech.settings import HOSTED, SpeechSettings, WyomingSttSettings, WyomingTtsSettings
from sipserver.speech.vendors.wyoming_stt import WyomingStt
from sipserver.speech.vendors.wyoming_tts import WyomingTts
from sipserver.speech.vendors.wyoming_vad import WyomingVad
from sipserver.speech.wire import Wish

LOAD_S = 60.0
WAIT_S = 15.0
"""How long a process waits for the workers when it starts; it goes on without them then, and looks for them again."""
PAUSE_S = 0.2
LOCATE_S = 1.0
_AT_ONCE = 10_000
"""Requests are counted where the engines are."""


class Hosted:
    """Loop thread. workers: their URIs; the first one has the language models."""

    def __init__(self, settings: SpeechSettings, workers: Sequence[str]) -> None:
        self.peers = Peers(workers)
        self.stt = frozenset(name for name, engine in settings.stt.items() if isinstance(engine, HOSTED))
        self.tts = frozenset(name for name, engine in settings.tts.items() if isinstance(engine, HOSTED))
        self._settings = settings
        self._uri = workers[0]
        self._model_host = Peers(workers[:1])
        self._searches: set[asyncio.Task[None]] = set()
        self._log = logger("speech")

    async def load(self, wish: Wish) -> Speech:
        """Have the workers load what is wished for; returns the engines' clients under the same names.

        Without a worker the clients are there and busy until one comes. Raises ConfigError as the worker met it.
        """
        speech = Speech(
            WyomingVad(self.peers) if wish.vad else None,
            {name: self._stt(name) for name in wish.stt},
            {name: self._tts(name) for name in wish.tts},
        )
        if wish != Wish():
            await self._adopt(wish, speech)
        return speech

    async def locate(self, name: str) -> tuple[str, str]:
        """(address, key) of a language model. Raises ProviderError while it is not to be found."""
        answer = await self._model_host.ask(name, Event(wire.LOCATE, {"name": name}), wire.LOCATION, LOCATE_S)
        return str(answer.data["url"]), str(answer.data["key"])

    async def close(self) -> None:
        for search in self._searches:
            search.cancel()
        await asyncio.gather(*self._searches, return_exceptions=True)

    async def _adopt(self, wish: Wish, speech: Speech) -> None:
        try:
            async with asyncio.timeout(WAIT_S):
                await self._search(wish, speech)
        except TimeoutError:
            self._log.error("no speech worker answers; going on without", worker=self._uri)
            search = asyncio.create_task(self._search_on(wish, speech), name="search speech workers")
            self._searches.add(search)
            search.add_done_callback(self._searches.discard)

    async def _search(self, wish: Wish, speech: Speech) -> None:
        """Ask until a worker answers. Raises ConfigError."""
        while True:
            try:
                info = await self.peers.load(wish, LOAD_S)
                break
            except ProviderError:
                await asyncio.sleep(PAUSE_S)
        for engine in (*speech.stt.values(), *speech.tts.values()):
            if isinstance(engine, WyomingStt | WyomingTts):
                engine.describe(info)

    async def _search_on(self, wish: Wish, speech: Speech) -> None:
        try:
            await self._search(wish, speech)
            self._log.info("a speech worker answers", worker=self._uri)
        except ConfigError as problem:
            self._log.error("a speech worker cannot load an engine", error=str(problem))
        except SipServerError as problem:
            self._log.error("a speech worker is not understood", error=str(problem))

    def _stt(self, name: str) -> WyomingStt:
        known = self._settings.stt[name]
        settings = WyomingSttSettings(
            vendor="wyoming", uri=self._uri, timeout_s=known.timeout_s, queue=known.queue, concurrency=_AT_ONCE
        )
        return WyomingStt(name, self.peers, settings, program=name)

    def _tts(self, name: str) -> WyomingTts:
        known = self._settings.tts[name]
        settings = WyomingTtsSettings(
            vendor="wyoming", uri=self._uri, timeout_s=known.timeout_s, queue=known.queue, concurrency=_AT_ONCE
        )
        return WyomingTts(name, self.peers, settings, program=name)
