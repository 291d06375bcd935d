"""Speech-to-text by a Wyoming server: a speech worker of this machine, or any other (wyoming-faster-whisper, ...).

Protocol: https://github.com/OHF-Voice/wyoming. A connection an utterance: transcribe, audio-start, audio-chunk...,
audio-stop, and the transcript comes. Closing the connection abandons the request. Owns what is asked and which server
is asked next when one is gone or full; refuses to know what other servers call their models.
"""

from __future__ import annotations

import asyncio
import time

from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.event import Event
from wyoming.info import Describe, Info, SelectProgram

from sipserver.audio.frame import RATE_HZ, Samples
from sipserver.errors import ProviderBusy, ProviderError, ProviderTimeout
from sipserver.log import logger
from sipserver.speech import languages, wire
from sipserver.speech.contract import SttCapabilities, Transcription
from sipserver.speech.gate import Gate
from sipserver.speech.peers import Peer, Peers, Unreachable
from sipserver.speech.settings import WyomingSttSettings

DESCRIBE_S = 2.0
_CHUNK_SAMPLES = RATE_HZ
_TRANSCRIPT = Transcript("").event().type
_INFO = Info().event().type


class WyomingStt:
    """Satisfies `contract.Stt`. program: the one to select where a server has several."""

    def __init__(self, name: str, peers: Peers, settings: WyomingSttSettings, program: str = "") -> None:
        self.name = name
        self.capabilities = SttCapabilities(None, detects_language=True, local=False)
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
        self.capabilities = wire.stt_capabilities(info, self._program or self._settings.model)

    async def transcribe(self, samples: Samples, *, language: str = "auto", speculative: bool = False) -> Transcription:
        tag = languages.primary(language)
        if not len(samples):
            return Transcription("", tag, None, 0, 0)
        asked = self._events(samples, tag, speculative)
        async with self.gate.passage(speculative=speculative) as queued_ms:
            began_at = time.monotonic()
            answer = await self._ask(asked)
            took_ms = round((time.monotonic() - began_at) * 1000)
        transcript = Transcript.from_event(answer)
        told = transcript.context or {}
        waited_ms = int(told.get("queued_ms", 0))
        return Transcription(
            transcript.text.strip(),
            languages.of_name(transcript.language or tag),
            told.get("confidence"),
            queued_ms + waited_ms,
            int(told.get("took_ms", took_ms - waited_ms)),
        )

    async def close(self) -> None:
        """Nothing is held between requests."""

    async def _ask(self, asked: list[Event]) -> Event:
        """The answer of the first server that has one; the time limit is for all of them together."""
        last: ProviderError = Unreachable(self.name, "there is no speech server")
        deadline = asyncio.get_running_loop().time() + self._settings.timeout_s
        for peer in self._peers.order():
            try:
                async with asyncio.timeout_at(deadline):
                    return await self._one(peer, asked)
            except ProviderBusy as problem:  # gone or full: another one may do
                last = problem
            except TimeoutError as problem:
                reason = f"no answer within {self._settings.timeout_s:g} s"
                peer.failed(reason)
                raise ProviderTimeout(self.name, reason) from problem
        raise last

    async def _one(self, peer: Peer, asked: list[Event]) -> Event:
        async with peer.link(self.name) as link:
            await link.write(*asked)
            while (event := await link.read()).type != _TRANSCRIPT:
                continue
            peer.works()
            return event

    def _events(self, samples: Samples, tag: str, speculative: bool) -> list[Event]:
        language = None if tag == languages.AUTO else tag
        context = {"speculative": True} if speculative else None
        events = [SelectProgram(self._program).event()] if self._program else []
        events.append(Transcribe(self._settings.model or None, language, context).event())
        events.append(AudioStart(RATE_HZ, 2, 1).event())
        for start in range(0, len(samples), _CHUNK_SAMPLES):
            payload = samples[start : start + _CHUNK_SAMPLES].astype("<i2").tobytes()
            events.append(AudioChunk(RATE_HZ, 2, 1, payload, timestamp=start * 1000 // RATE_HZ).event())
        return [*events, AudioStop(len(samples) * 1000 // RATE_HZ).event()]


async def load(name: str, settings: WyomingSttSettings) -> WyomingStt:
    """Ask the server what it can do. One that does not answer is taken to be able to do everything, and is asked."""
    peers = Peers([settings.uri])
    engine = WyomingStt(name, peers, settings)
    try:
        engine.describe(await peers.ask(name, Describe().event(), _INFO, DESCRIBE_S))
    except ProviderError as problem:
        logger("speech", engine=name).warning("speech server not described", uri=settings.uri, reason=problem.reason)
    return engine
