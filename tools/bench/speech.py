"""The speech engines alone, without a call: Whisper by length and load, the detector's CPU, first sound of the voices.

Medians. Runs for less than a minute with the models of the catalogue; `base` is measured where it is installed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from sipserver.audio.frame import FRAME_SAMPLES, Frame, Samples
from sipserver.errors import ModelMissing
from sipserver.settings import Settings
from sipserver.speech.contract import Tts
from sipserver.speech.settings import EspeakSettings, PiperSettings, WhisperSettings
from sipserver.speech.vendors import espeak, piper, silero, whisper
from tools.bench.report import Row

TEXTS = {
    3: "How are you?",
    8: "Hello, this is Acme, how can I help?",
    15: "I would like to speak with somebody about my last invoice, because it is quite wrong.",
}
LENGTHS_S = (1.0, 1.6, 3.4, 7.2)
RUNS = 5
VAD_S = 5.0


async def _spoken(engine: Tts, text: str) -> Samples:
    return np.concatenate([samples async for samples in engine.synthesise(text)])


async def _timed(work: Awaitable[object]) -> float:
    began = time.perf_counter()
    await work
    return (time.perf_counter() - began) * 1000


async def _whisper(model: str, folder: Path, sounds: Sequence[Samples]) -> list[Row]:
    rows = []
    for workers, batch in ((1, 1), (2, 1), (4, 1), (2, 4)):
        settings = WhisperSettings(model=model, workers=workers, batch=batch, queue=64, timeout_s=60)
        engine = await whisper.load("bench", settings, folder)
        try:
            if workers == 1 and batch == 1:
                for length_s, sound in zip(LENGTHS_S, sounds, strict=True):
                    times = [await _timed(engine.transcribe(sound)) for _ in range(RUNS)]
                    rows.append(
                        Row(f"Whisper {model}, {length_s:g} s of speech, one thread", f"{median(times):.0f} ms")
                    )
            crowd = [sounds[2]] * 12
            took = await _timed(asyncio.gather(*[engine.transcribe(sound) for sound in crowd]))
            speed = len(crowd) * LENGTHS_S[2] / took * 1000
            load = f"{workers} worker(s), batches of {batch}"
            rows.append(Row(f"Whisper {model}, 12 utterances at once, {load}", f"{speed:.0f} s of speech a second"))
        finally:
            await engine.close()
    return rows


async def _vad(folder: Path, sound: Samples) -> list[Row]:
    """CPU of the whole process while streams are fed in real time, less the same without streams."""
    rows = []
    frames = [sound[start : start + FRAME_SAMPLES] for start in range(0, len(sound) - FRAME_SAMPLES, FRAME_SAMPLES)]
    idle = 0.0
    for streams in (0, 1, 4, 16):  # none first: it gives the cost of the feeding loop
        vad = await silero.load(folder)
        ears = [vad.stream(lambda _probability, _at_ns: None) for _ in range(streams)]
        began, used = time.monotonic(), time.process_time()
        for number in range(int(VAD_S / 0.02)):
            for ear in ears:
                ear.hear(Frame(frames[number % len(frames)], time.monotonic_ns()))
            await asyncio.sleep(max(0.0, began + (number + 1) * 0.02 - time.monotonic()))
        cpu_ms = (time.process_time() - used) * 1000 / VAD_S
        await vad.close()
        if streams:
            rows.append(
                Row(f"Silero, {streams} stream(s)", f"{(cpu_ms - idle) / streams:.2f} ms CPU a second of sound")
            )
        else:
            idle = cpu_ms
    return rows


async def _voice(name: str, engine: Tts) -> list[Row]:
    rows = []
    for words, text in TEXTS.items():
        times = []
        for _ in range(RUNS):
            stream = engine.synthesise(text)
            times.append(await _timed(anext(stream)))
            await stream.aclose()  # type: ignore[attr-defined]
        rows.append(Row(f"{name}, first sound of {words} words", f"{median(times):.0f} ms"))
    return rows


async def _measure(folder: Path) -> list[Row]:
    rows: list[Row] = []
    mouth = await piper.load("bench", PiperSettings(), folder)
    fallback = await espeak.load("bench", EspeakSettings())
    try:
        speech = np.concatenate([await _spoken(mouth, text) for text in TEXTS.values()] * 2)
        rows += await _voice("Piper, two threads", mouth)
        rows += await _voice("espeak-ng", fallback)
    finally:
        await mouth.close()
        await fallback.close()
    rows += await _vad(folder, speech)
    sounds = [speech[: int(length_s * 16_000)] for length_s in LENGTHS_S]
    for model in ("tiny.en", "base"):
        try:
            rows += await _whisper(model, folder, sounds)
        except ModelMissing:
            continue
    return rows


def measure(_folder: Path) -> Sequence[Row]:
    """For `python -m tools.bench speech`."""
    settings = Settings().resolved(Path("etc").resolve())
    return asyncio.run(_measure(settings.speech.models))
