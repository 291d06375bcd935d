"""One connection to the speech worker: what it asks, and its end.

Owns the work that the connection asked for: whatever closes the connection ends that work, be it waiting in a queue or
begun. Refuses to queue anything itself: engines have bounded queues, and their refusal goes out as an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import numpy as np
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioChunkConverter, AudioStart, AudioStop
from wyoming.event import Event
from wyoming.info import Describe, SelectProgram
from wyoming.ping import Ping, Pong
from wyoming.server import AsyncEventHandler
from wyoming.tts import Synthesize
from wyoming.vad import VoiceStarted, VoiceStopped

from sipserver.audio.frame import RATE_HZ, Samples
from sipserver.errors import ProviderBusy, ProviderRejected, SipServerError
from sipserver.log import logger
from sipserver.speech import wire
from sipserver.speech.contract import Stt, Tts
from sipserver.speech.segment import Slot
from sipserver.speech.worker.host import Host
from sipserver.speech.worker.info import info

Engine = TypeVar("Engine", Stt, Tts)

LONGEST_S = 30
_CHUNK_SAMPLES = 4 * RATE_HZ


class Session(AsyncEventHandler):
    """Loop thread. `run` ends when the client has gone or broke the protocol; then nothing of it is left."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: Host) -> None:
        super().__init__(reader, writer)
        self._host = host
        self._program = ""
        self._request: Transcribe | None = None
        self._heard: list[bytes] = []
        self._heard_bytes = 0
        self._converter = AudioChunkConverter(RATE_HZ, 2, 1)
        self._place: int | None = None
        self._ring: Slot | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._verbs: dict[str, Callable[[Event], Awaitable[None]]] = {
            Describe().event().type: self._describe,
            Ping().event().type: self._ping,
            SelectProgram("").event().type: self._select,
            Transcribe().event().type: self._transcribe,
            AudioStart(0, 0, 0).event().type: self._audio_start,
            AudioChunk(0, 0, 0, b"").event().type: self._audio_chunk,
            AudioStop().event().type: self._audio_stop,
            Synthesize("").event().type: self._synthesize,
            wire.LOAD: self._load,
            wire.LOCATE: self._locate,
        }

    async def run(self) -> None:
        """Serve until the client goes."""
        try:
            await super().run()
        except (OSError, EOFError):  # how clients go that abandon what they asked for
            return
        except (KeyError, TypeError, AttributeError, ValueError) as problem:
            logger("speech").warning("a speech client is not understood", error=f"{type(problem).__name__}: {problem}")

    async def handle_event(self, event: Event) -> bool:
        """Events that are not known are passed over, as the protocol wants it."""
        verb = self._verbs.get(event.type)
        if verb is not None:
            try:
                await verb(event)
            except SipServerError as problem:
                await self.write_event(wire.error_event(problem))
        return True

    async def disconnect(self) -> None:
        """The client is gone: its stream and its work end."""
        self._leave()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- questions ----------------------------------------------------------------------------------------------------

    async def _describe(self, _event: Event) -> None:
        await self.write_event(info(self._host))

    async def _ping(self, event: Event) -> None:
        await self.write_event(Pong(Ping.from_event(event).text).event())

    async def _select(self, event: Event) -> None:
        self._program = SelectProgram.from_event(event).name

    async def _load(self, event: Event) -> None:
        self._start(self._bring(wire.Wish.from_event(event)))

    async def _bring(self, wish: wire.Wish) -> None:
        await self._host.bring(wish)
        answer = info(self._host)
        await self.write_event(Event(wire.LOADED, answer.data))

    async def _locate(self, event: Event) -> None:
        name = str(event.data["name"])
        where = self._host.model(name)
        if where is None:
            raise ProviderRejected(name, "the model is being started or not here")
        await self.write_event(Event(wire.LOCATION, {"url": where[0], "key": where[1]}))

    # --- sound in -----------------------------------------------------------------------------------------------------

    async def _transcribe(self, event: Event) -> None:
        self._request = Transcribe.from_event(event)

    async def _audio_start(self, event: Event) -> None:
        self._heard, self._heard_bytes = [], 0
        self._converter = AudioChunkConverter(RATE_HZ, 2, 1)
        if self._request is not None:
            return
        judge = self._host.judge
        if judge is None:
            raise ProviderBusy("vad", "no voice activity detector is loaded")
        self._leave()
        self._place = judge.open(self._voice)
        if event.data.get("shared"):
            segment = judge.segment
            place = {"name": segment.name, "path": segment.path, "slots": segment.slots, "slot": self._place}
            await self.write_event(Event(wire.SEGMENT, place))
        else:
            self._ring = judge.writer(self._place)

    async def _audio_chunk(self, event: Event) -> None:
        payload = self._converter.convert(AudioChunk.from_event(event)).audio
        if self._ring is not None:
            self._ring.write(np.frombuffer(payload, "<i2"))
        elif self._request is not None:
            self._heard_bytes += len(payload)
            if self._heard_bytes > 2 * LONGEST_S * RATE_HZ:
                self._request, self._heard = None, []
                raise ProviderRejected("stt", f"an utterance is longer than {LONGEST_S} s")
            self._heard.append(payload)

    async def _audio_stop(self, _event: Event) -> None:
        request, self._request = self._request, None
        if request is None:
            self._leave()
        else:
            samples = np.frombuffer(b"".join(self._heard), "<i2")
            self._heard = []
            self._start(self._answer(self._stt(request.name), request, samples))

    async def _answer(self, engine: Stt, request: Transcribe, samples: Samples) -> None:
        speculative = bool((request.context or {}).get("speculative"))
        told = await engine.transcribe(samples, language=request.language or "auto", speculative=speculative)
        context = {"confidence": told.confidence, "queued_ms": told.queued_ms, "took_ms": told.took_ms}
        await self.write_event(Transcript(told.text, context, told.language).event())

    def _voice(self, started: bool, at_ms: int) -> None:
        event = VoiceStarted(at_ms).event() if started else VoiceStopped(at_ms).event()
        self._start(self.write_event(event))

    def _leave(self) -> None:
        place, self._place, self._ring = self._place, None, None
        judge = self._host.judge
        if place is not None and judge is not None:
            judge.release(place)

    # --- sound out ----------------------------------------------------------------------------------------------------

    async def _synthesize(self, event: Event) -> None:
        self._start(self._speak(self._tts(), Synthesize.from_event(event)))

    async def _speak(self, engine: Tts, request: Synthesize) -> None:
        voice = (request.voice.name if request.voice else None) or ""
        language = (request.context or {}).get("language") or (request.voice and request.voice.language) or "en"
        key = (engine.name, voice, language, request.text)
        kept = self._host.kept(*key)
        await self.write_event(AudioStart(RATE_HZ, 2, 1, timestamp=0).event())
        if kept is not None:
            await self._sound(kept)
        else:
            spoken = []
            async with _closing(engine.synthesise(request.text, voice=voice, language=language)) as chunks:
                async for samples in chunks:
                    spoken.append(samples)
                    await self._sound(samples)
            if spoken:
                self._host.keep(*key, np.concatenate(spoken))
        await self.write_event(AudioStop().event())

    async def _sound(self, samples: Samples) -> None:
        for start in range(0, len(samples), _CHUNK_SAMPLES):
            payload = samples[start : start + _CHUNK_SAMPLES].astype("<i2").tobytes()
            await self.write_event(AudioChunk(RATE_HZ, 2, 1, payload).event())

    # --- inside -------------------------------------------------------------------------------------------------------

    def _stt(self, name: str | None) -> Stt:
        return _chosen(self._host.stt, self._program, name)

    def _tts(self) -> Tts:
        return _chosen(self._host.tts, self._program)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._told(work), name="speech request")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _told(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it; what goes wrong is told to the client."""
        try:
            await work
        except OSError:  # the client has gone; `run` sees it too
            return
        except Exception as problem:  # a fault of one request must not end the others of the process
            if not isinstance(problem, SipServerError):
                logger("speech").error("a speech request broke", exc_info=problem)
            await self._complain(problem)

    async def _complain(self, problem: Exception) -> None:
        try:
            await self.write_event(wire.error_event(problem))
        except OSError:
            return


def _chosen(engines: Mapping[str, Engine], program: str, model: str | None = None) -> Engine:
    """The program that was selected, the model that was asked for, or else the first engine there is."""
    if program and program not in engines:
        raise ProviderBusy(program, "it is not loaded")
    engine = engines.get(program or model or "") or next(iter(engines.values()), None)
    if engine is None:
        raise ProviderBusy(model or "speech", "no such engine is loaded")
    return engine


@asynccontextmanager
async def _closing(chunks: AsyncIterator[Samples]) -> AsyncIterator[AsyncIterator[Samples]]:
    """Close an engine's iterator however the block ends."""
    try:
        yield chunks
    finally:
        close = getattr(chunks, "aclose", None)
        if close is not None:
            await close()
