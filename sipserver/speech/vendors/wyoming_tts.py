"""Text-to-speech by a Wyoming server: a speech worker of this machine, or any other (wyoming-piper, ...).

Protocol: https://github.com/OHF-Voice/wyoming. A connection a clause: synthesize, and audio-start, audio-chunk...,
audio-stop come while the server speaks. Closing the connection abandons the rest. Sound of any rate, width and number
of channels becomes 16 kHz mono.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import numpy as np
from wyoming.audio import AudioChunk, AudioChunkConverter, AudioStop
from wyoming.event import Event
from wyoming.info import Describe, Info, SelectProgram
from wyoming.tts import Synthesize, SynthesizeVoice

from sipserver.audio.frame import Samples
from sipserver.audio.resample import Resampler
from sipserver.errors import ProviderBusy, ProviderError, ProviderTimeout
from sipserver.log import logger
from sipserver.speech import languages, wire
from sipserver.speech.contract import TtsCapabilities
from sipserver.speech.gate import Gate
from sipserver.speech.peers import Link, Peer, Peers, Unreachable
from sipserver.speech.settings import WyomingTtsSettings

DESCRIBE_S = 2.0
_INFO = Info().event().type


class WyomingTts:
    """Satisfies `contract.Tts`. program: the one to select where a server has several."""

    def __init__(self, name: str, peers: Peers, settings: WyomingTtsSettings, program: str = "") -> None:
        self.name = name
        self.capabilities = TtsCapabilities(None, None, streaming=True, local=False)
        self._peers, self._settings, self._program = peers, settings, program
        self.gate = Gate(name, at_once=settings.concurrency, bound=settings.queue, timeout_s=settings.timeout_s)

    @property
    def depth(self) -> int:
        return self.gate.depth

    @property
    def ready(self) -> bool:
        return self._peers.ready

    def describe(self, info: Event) -> None:
        """Learn the capabilities from a server's `info`."""
        self.capabilities = wire.tts_capabilities(info, self._program)

    async def synthesise(self, text: str, *, voice: str = "", language: str = "en") -> AsyncGenerator[Samples, None]:
        if not text.strip():
            return
        asked = self._events(text, voice or self._settings.voice, language)
        async with self.gate.passage():
            last: ProviderError = Unreachable(self.name, "there is no speech server")
            for peer in self._peers.order():
                begun = False
                try:
                    async with aclosing(self._one(peer, asked)) as chunks:
                        async for samples in chunks:
                            begun = True
                            yield samples
                        return
                except ProviderBusy as problem:  # gone or full: another one may do, if nothing was heard yet
                    if begun:
                        raise
                    last = problem
            raise last

    async def close(self) -> None:
        """Nothing is held between requests."""

    async def _one(self, peer: Peer, asked: list[Event]) -> AsyncGenerator[Samples, None]:
        converter, resampler = AudioChunkConverter(width=2, channels=1), None
        async with peer.link(self.name) as link:
            await link.write(*asked)
            while not AudioStop.is_type((event := await self._next(peer, link)).type):
                if not AudioChunk.is_type(event.type):
                    continue
                chunk = converter.convert(AudioChunk.from_event(event))
                if resampler is None or resampler.from_hz != chunk.rate:
                    resampler = Resampler(chunk.rate)
                samples = resampler.convert(np.frombuffer(chunk.audio, "<i2"))
                if len(samples):
                    yield samples
            peer.works()
            if resampler is not None and len(rest := resampler.flush()):
                yield rest

    def _events(self, text: str, voice: str, language: str) -> list[Event]:
        tag = languages.primary(language)
        chosen = SynthesizeVoice(name=voice) if voice else SynthesizeVoice(language=tag)
        events = [SelectProgram(self._program).event()] if self._program else []
        return [*events, Synthesize(text, chosen, context={"language": language}).event()]

    async def _next(self, peer: Peer, link: Link) -> Event:
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return await link.read()
        except TimeoutError as problem:
            reason = f"no sound within {self._settings.timeout_s:g} s"
            peer.failed(reason)
            raise ProviderTimeout(self.name, reason) from problem


async def load(name: str, settings: WyomingTtsSettings) -> WyomingTts:
    """Ask the server what it can do. One that does not answer is taken to be able to do everything, and is asked."""
    peers = Peers([settings.uri])
    engine = WyomingTts(name, peers, settings)
    try:
        engine.describe(await peers.ask(name, Describe().event(), _INFO, DESCRIBE_S))
    except ProviderError as problem:
        logger("speech", engine=name).warning("speech server not described", uri=settings.uri, reason=problem.reason)
    return engine
