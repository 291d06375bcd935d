"""Piper voices: neural speech on the CPU, a sentence at a time.

Owns the voices, which one speaks a language, and the cut of the silence before the first word (20-60 ms that the caller
would wait for). Refuses to split text: callers pass clauses, and the shorter the first one the sooner it is heard.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sipserver.audio.frame import RATE_HZ, Samples
from sipserver.audio.resample import resample
from sipserver.errors import ConfigError, ProviderRejected
from sipserver.speech import languages, models, quiet
from sipserver.speech.contract import TtsCapabilities
from sipserver.speech.settings import PiperSettings
from sipserver.speech.work import WorkQueue

_AT_ONCE = 2
_QUIET = 100
_LEAD = RATE_HZ // 100


@dataclass(frozen=True, slots=True)
class Voice:
    """engine: a loaded `piper.PiperVoice`; its methods block and may run in several threads. gain: a factor."""

    name: str
    language: str
    engine: Any
    gain: float = 1.0


@dataclass(slots=True, eq=False)
class Clause:
    """A text on its way through the worker. Chunks arrive on the loop; None ends them."""

    text: str
    voice: Voice
    loop: asyncio.AbstractEventLoop
    chunks: asyncio.Queue[Samples | None] = field(default_factory=asyncio.Queue)
    abandoned: bool = False

    def deliver(self, samples: Samples) -> None:
        """Worker thread."""
        try:
            self.loop.call_soon_threadsafe(self.chunks.put_nowait, samples)
        except RuntimeError:  # the loop is closed
            self.abandoned = True


class Piper:
    """Satisfies `contract.Tts`. Two clauses are spoken at a time; more wait."""

    def __init__(self, name: str, voices: Mapping[str, Voice], settings: PiperSettings) -> None:
        self.name = name
        self._voices = voices
        spoken = frozenset(voice.language for voice in voices.values())
        self.capabilities = TtsCapabilities(spoken, tuple(voices), streaming=True, local=True)
        self.queue: WorkQueue[Clause, None] = WorkQueue(
            name, _speak, threads=_AT_ONCE, bound=settings.queue, timeout_s=settings.timeout_s
        )

    @property
    def depth(self) -> int:
        return self.queue.depth

    async def synthesise(self, text: str, *, voice: str = "", language: str = "en") -> AsyncGenerator[Samples, None]:
        clause = Clause(text, self._choose(voice, language), asyncio.get_running_loop())
        if not text.strip():
            return
        spoken = self.queue.submit(clause)
        spoken.add_done_callback(lambda _future: clause.chunks.put_nowait(None))
        try:
            while (samples := await clause.chunks.get()) is not None:
                yield samples
            await spoken
        finally:
            clause.abandoned = True
            spoken.cancel()

    async def close(self) -> None:
        await self.queue.close()

    def _choose(self, voice: str, language: str) -> Voice:
        if voice:
            if voice not in self._voices:
                raise ProviderRejected(self.name, f"there is no voice {voice}; there are {', '.join(self._voices)}")
            return self._voices[voice]
        tag = languages.primary(language)
        for known in self._voices.values():
            if known.language == tag:
                return known
        raise ProviderRejected(self.name, f"no voice speaks {language}")


def without_lead(samples: Samples) -> Samples:
    """Cut the silence before the first sound, but for 10 ms. Nothing but silence becomes nothing."""
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > _QUIET)
    return samples[max(0, int(loud[0]) - _LEAD) :] if len(loud) else samples[:0]


def _speak(clauses: Sequence[Clause]) -> list[None]:
    """Worker thread. One chunk a sentence."""
    for clause in clauses:
        engine, first = clause.voice.engine, True
        for sentence in engine.synthesize(clause.text):
            if clause.abandoned:
                break
            samples = resample(sentence.audio_int16_array, sentence.sample_rate)
            samples = (samples * np.float32(clause.voice.gain)).astype(np.int16)
            if first:
                samples = without_lead(samples)
            if len(samples):
                first = False
                clause.deliver(samples)
    return [None] * len(clauses)


async def load(name: str, settings: PiperSettings, folder: Path) -> Piper:
    """Load the voices in a thread and let each say a word, so that the first caller does not wait.

    Raises ModelMissing.
    """
    paths = [_voice_file(models.find(voice, folder)) for voice in settings.voices]
    voices = await quiet.load(lambda: [_load(path, settings) for path in paths])
    return Piper(name, {voice.name: voice for voice in voices}, settings)


def _voice_file(path: Path) -> Path:
    """A voice is a file, or a folder (a copied or downloaded one) with one voice in it."""
    files = [path] if path.is_file() else sorted(path.rglob("*.onnx"))
    if len(files) != 1 or not Path(f"{files[0]}.json").is_file():
        raise ConfigError(f"{path} is no Piper voice: it takes one .onnx file with an .onnx.json file beside it")
    return files[0]


def _load(path: Path, settings: PiperSettings) -> Voice:
    onnxruntime: Any = importlib.import_module("onnxruntime")
    piper: Any = importlib.import_module("piper")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = min(settings.threads, os.cpu_count() or settings.threads)
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        config = piper.PiperConfig.from_dict(json.loads(Path(f"{path}.json").read_text(encoding="utf-8")))
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except (ValueError, KeyError, RuntimeError) as problem:
        raise ConfigError(f"{path} could not be loaded: {problem}") from problem
    engine = piper.PiperVoice(session=session, config=config, download_dir=path.parent)
    list(engine.synthesize("One."))
    return Voice(path.stem, languages.primary(config.espeak_voice), engine, 10 ** (settings.gain_db / 20))
