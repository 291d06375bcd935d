"""The speech worker beside its clients: what a stream of caller audio costs on both sides, and what a request adds.

Events are the standard's `audio-chunk` (32 ms each) over a Unix socket; shared memory is what cells use. The same judge
runs behind both. All streams are fed with speech by one client process, in real time; CPU is that of whole processes
less the same without streams.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
from wyoming.audio import AudioChunk, AudioStart
from wyoming.event import async_write_event

from sipserver.audio.frame import FRAME_SAMPLES, RATE_HZ, Frame, Samples
from sipserver.engines import EngineRoom, Wanted
from sipserver.settings import Settings
from sipserver.speech import sockets
from sipserver.speech.peers import Peers
from sipserver.speech.segment import CHUNK_SAMPLES
from sipserver.speech.settings import EspeakSettings, WhisperSettings
from sipserver.speech.vendors import espeak, whisper
from sipserver.speech.vendors.wyoming_vad import WyomingVad
from tests.servers.speech import SpeechProcess
from tools.bench.report import Row, spread

STREAMS = (50, 100, 200)
RUN_S = 6.0
SETTLE_S = 1.0
RUNS = 15
TEXT = "I would like to speak with somebody about my last invoice, because it is quite wrong. "
PLAN = """tenant: bench
agents:
  helper: {prompt: Be short., stt: [whisper], llm: {use: remote}, tts: {use: piper}}
flows:
  main: [answer, {agent: {use: helper, on: {failed: end}}}]
routes:
  - {match: {}, flow: main}
"""

Feed = Callable[[int], Awaitable[None]]


async def _paced(step_s: float, feed: Feed) -> tuple[float, float]:
    """Feed in real time; returns the CPU seconds of this process and the seconds of the clock."""
    for number in range(int(SETTLE_S / step_s)):
        await feed(number)
        await asyncio.sleep(step_s)
    began, used = time.monotonic(), time.process_time()
    for number in range(int(RUN_S / step_s)):
        await feed(number)
        await asyncio.sleep(max(0.0, began + (number + 1) * step_s - time.monotonic()))
    return time.process_time() - used, time.monotonic() - began


async def _shared(worker: SpeechProcess, sound: Samples, streams: int) -> tuple[float, float, str]:
    """Percent of a core here and there, and how late chunks were told."""
    vad = WyomingVad(Peers([worker.uri]))
    late_ms: list[float] = []

    def told(_probability: float, at_ns: int) -> None:
        late_ms.append((time.monotonic_ns() - at_ns) / 1e6)

    ears = [vad.stream(told) for _ in range(streams)]
    frames = [sound[start : start + FRAME_SAMPLES] for start in range(0, len(sound) - FRAME_SAMPLES, FRAME_SAMPLES)]

    async def feed(number: int) -> None:
        for place, ear in enumerate(ears):
            ear.hear(Frame(frames[(number + 7 * place) % len(frames)], time.monotonic_ns()))

    before = worker.cpu_s()
    here_s, took_s = await _paced(0.02, feed)
    there_s = (worker.cpu_s() - before) * RUN_S / (RUN_S + SETTLE_S)
    stood_in = 100 * vad.stood_in / max(1, len(late_ms))
    await vad.close()
    return 100 * here_s / took_s, 100 * there_s / took_s, f"told {spread(late_ms)} late, {stood_in:.0f} % by loudness"


async def _events(worker: SpeechProcess, sound: Samples, streams: int) -> tuple[float, float]:
    links = [await sockets.connect(worker.uri) for _ in range(streams)]
    for _, writer in links:
        await async_write_event(AudioStart(RATE_HZ, 2, 1).event(), writer)
    starts = range(0, len(sound) - CHUNK_SAMPLES, CHUNK_SAMPLES)
    payloads = [sound[start : start + CHUNK_SAMPLES].tobytes() for start in starts]

    async def feed(number: int) -> None:
        for place, (_, writer) in enumerate(links):
            payload = payloads[(number + 5 * place) % len(payloads)]
            await async_write_event(AudioChunk(RATE_HZ, 2, 1, payload, timestamp=32 * number).event(), writer)

    before = worker.cpu_s()
    here_s, took_s = await _paced(0.032, feed)
    there_s = (worker.cpu_s() - before) * RUN_S / (RUN_S + SETTLE_S)
    for _, writer in links:
        writer.transport.abort()
    return 100 * here_s / took_s, 100 * there_s / took_s


async def _nothing(_number: int) -> None: ...


async def _streams(worker: SpeechProcess, sound: Samples) -> list[Row]:
    idle = 100 * (await _paced(0.02, _nothing))[0] / RUN_S
    rows = []
    for streams in STREAMS:
        here, there = await _events(worker, sound, streams)
        rows.append(_row(f"{streams} streams as events", here - idle, there, streams, ""))
        here, there, how = await _shared(worker, sound, streams)
        rows.append(_row(f"{streams} streams in shared memory", here - idle, there, streams, how))
    return rows


def _row(what: str, here: float, there: float, streams: int, how: str) -> Row:
    figure = f"{here / streams:.3f} + {there / streams:.3f} = {(here + there) / streams:.3f} % of a core a stream"
    return Row(f"Voice activity, {what} (client + worker)", figure, "<= 0.3 %" if "shared" in what else "", how)


async def _milliseconds(work: Callable[[], Awaitable[object]]) -> float:
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        await work()
        times.append((time.perf_counter() - began) * 1000)
    return median(times)


async def _requests(settings: Settings, worker: SpeechProcess, sound: Samples) -> list[Row]:
    room = EngineRoom(settings, [worker.uri])
    await room.bring(Wanted(False, frozenset({"whisper"}), frozenset({"piper"}), frozenset()))
    engine = await whisper.load("here", WhisperSettings(), settings.speech.models)
    utterance = sound[: int(3.4 * RATE_HZ)]
    here = await _milliseconds(lambda: engine.transcribe(utterance, language="en"))
    there = await _milliseconds(lambda: room.engines.stt["whisper"].transcribe(utterance, language="en"))

    async def say() -> None:
        async for _ in room.engines.tts["piper"].synthesise("Hello, this is Acme, how can I help?"):
            pass

    await say()
    cached = await _milliseconds(say)
    await engine.close()
    await room.close()
    return [
        Row("Whisper, 3.4 s of speech, in the process / by the worker", f"{here:.0f} / {there:.0f} ms"),
        Row("A clause that the worker has spoken before", f"{cached:.1f} ms"),
    ]


async def _measure(folder: Path, models: Path) -> list[Row]:
    given = {"dialplans": str(folder / "dialplans"), "speech": {"models": str(models)}}
    mouth = await espeak.load("bench", EspeakSettings())
    sound = np.concatenate([samples async for samples in mouth.synthesise(TEXT * 2)])
    await mouth.close()
    worker = SpeechProcess(folder / "worker", given)
    await asyncio.to_thread(worker.start)
    try:
        rows = await _streams(worker, sound)
        return rows + await _requests(Settings.model_validate(given), worker, sound)
    finally:
        await asyncio.to_thread(worker.stop)


def measure(folder: Path) -> Sequence[Row]:
    """For `python -m tools.bench speech-worker`."""
    (folder / "dialplans").mkdir()
    (folder / "dialplans/bench.yaml").write_text(PLAN)
    return asyncio.run(_measure(folder, Settings().resolved(Path("etc").resolve()).speech.models))
