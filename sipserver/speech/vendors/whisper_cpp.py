"""Whisper through whisper.cpp (pywhispercpp), for ggml models and for machines where that is the faster engine.

Owns one model and one thread: a whisper.cpp context serves one caller at a time. On the CPU it is 2.7 times slower than
`whisper.py` and loops on windows below 10 s, so it gets at least those; its place is beside Metal, CUDA and Vulkan.
The binding does not tell how likely it is that nobody spoke, so the limit on the probability is higher than there.
"""

from __future__ import annotations

import importlib
import math
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sipserver.audio.frame import RATE_HZ, Samples
from sipserver.errors import ConfigError, ProviderRejected
from sipserver.speech import languages, models, quiet
from sipserver.speech.contract import SttCapabilities, Transcription
from sipserver.speech.mel import LONGEST_S, Floats
from sipserver.speech.settings import WhisperCppSettings
from sipserver.speech.work import WorkQueue

_STATES_PER_S = 50
_SHORTEST_WINDOW_S = 10.0
_PAD_S = 1.0
_SHORTEST_SOUND_S = 1.1
_LOWEST_PROBABILITY = 0.45
_PROBE_TIMEOUT_S = 120.0
_NOT_SPEECH = re.compile(r"[\[(*♪][^\])*♪]*[\])*♪]")


@dataclass(frozen=True, slots=True)
class Utterance:
    """sound: float32 in [-1, 1]. language: a primary tag or `auto`."""

    sound: Floats
    language: str


@dataclass(frozen=True, slots=True)
class Reading:
    text: str
    language: str
    log_probability: float | None


class WhisperCppModel:
    """The model and its binding. Methods block; one thread at a time. `path` must have passed `probe`."""

    def __init__(self, path: Path, threads: int) -> None:
        self._binding: Any = importlib.import_module("_pywhispercpp")
        package: Any = importlib.import_module("pywhispercpp.model")
        self._model = package.Model(
            str(path),
            n_threads=threads,
            print_progress=False,
            print_realtime=False,
            print_timestamps=False,
            no_timestamps=True,
            single_segment=True,
            suppress_nst=True,
            temperature_inc=0.0,
        )
        self.multilingual = bool(self._binding.whisper_is_multilingual(self._model._ctx))
        self.languages = frozenset(package.Model.available_languages()) if self.multilingual else frozenset({"en"})

    def read(self, utterances: Sequence[Utterance]) -> list[Reading]:
        return [self._read(utterance) for utterance in utterances]

    def _read(self, utterance: Utterance) -> Reading:
        sound = utterance.sound
        seconds = len(sound) / RATE_HZ
        if seconds < _SHORTEST_SOUND_S:
            sound = np.pad(sound, (0, int((_SHORTEST_SOUND_S - seconds) * RATE_HZ)))
        window_s = min(LONGEST_S, max(seconds + _PAD_S, _SHORTEST_WINDOW_S))
        segments = self._model.transcribe(
            sound,
            language=utterance.language if self.multilingual else "en",
            audio_ctx=math.ceil(window_s * _STATES_PER_S),
            extract_probability=True,
        )
        heard = utterance.language
        if heard == languages.AUTO:
            number = self._binding.whisper_full_lang_id(self._model._ctx)
            heard = self._binding.whisper_lang_str(number)
        text = _NOT_SPEECH.sub("", " ".join(segment.text for segment in segments)).strip()
        probabilities = [segment.probability for segment in segments if segment.probability > 0]
        if not probabilities:
            return Reading("", heard, None)
        probability = sum(probabilities) / len(probabilities)
        return Reading(text if probability >= _LOWEST_PROBABILITY else "", heard, math.log(probability))


class WhisperCpp:
    """Satisfies `contract.Stt`."""

    def __init__(self, name: str, model: WhisperCppModel, settings: WhisperCppSettings) -> None:
        self.name = name
        self.capabilities = SttCapabilities(model.languages, model.multilingual, True, settings.vendor, settings.model)
        self._multilingual = model.multilingual
        self.queue: WorkQueue[Utterance, Reading] = WorkQueue(
            name, model.read, threads=1, bound=settings.queue, timeout_s=settings.timeout_s
        )

    @property
    def depth(self) -> int:
        return self.queue.depth

    async def transcribe(self, samples: Samples, *, language: str = "auto", speculative: bool = False) -> Transcription:
        tag = languages.primary(language)
        if tag == languages.AUTO and not self._multilingual:
            tag = "en"
        if tag != languages.AUTO and tag not in (self.capabilities.languages or ()):
            raise ProviderRejected(self.name, f"the model does not understand {language}")
        if len(samples) > LONGEST_S * RATE_HZ:
            raise ProviderRejected(self.name, f"an utterance is longer than {LONGEST_S:.0f} s")
        if not len(samples):
            return Transcription("", tag, None, 0, 0)
        sound = samples.astype(np.float32) / np.float32(32768)
        done = await self.queue.submit(Utterance(sound, tag), speculative=speculative)
        reading = done.value
        return Transcription(reading.text, reading.language, reading.log_probability, done.queued_ms, done.took_ms)

    async def close(self) -> None:
        await self.queue.close()


_PROBE = """
import sys, _pywhispercpp as binding
context = binding.whisper_init_from_file_with_params(sys.argv[1], binding.whisper_context_default_params())
binding.whisper_is_multilingual(context)
"""


def probe(path: Path) -> None:
    """Let another process read the model first. Raises ConfigError if it cannot.

    A file that whisper.cpp cannot read gives a context that looks like any other and crashes whoever uses it.
    """
    command = [sys.executable, "-c", _PROBE, str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as problem:
        raise ConfigError(f"{path} could not be loaded within {_PROBE_TIMEOUT_S:g} s") from problem
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "ERROR" in line or "invalid" in line or "failed" in line]
        raise ConfigError(f"{path} could not be loaded: {said[0] if said else 'whisper.cpp cannot read it'}")


def _load(path: Path, threads: int) -> WhisperCppModel:
    probe(path)
    return WhisperCppModel(path, threads)


async def load(name: str, settings: WhisperCppSettings, folder: Path) -> WhisperCpp:
    """Load the model in a thread. Raises ModelMissing, or ConfigError if the file is no ggml Whisper model."""
    path = models.find(settings.model, folder)
    if not path.is_file():
        raise ConfigError(f"{path} is no file: whisper.cpp reads one ggml .bin file")
    return WhisperCpp(name, await quiet.load(lambda: _load(path, settings.threads)), settings)
