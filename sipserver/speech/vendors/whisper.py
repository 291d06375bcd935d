"""Whisper through CTranslate2, on a window as long as the utterance instead of 30 s.

Owns the windows, the batches and the judgement whether there was speech at all. Refuses utterances over 30 s: who
listens to calls cuts turns shorter.

A bare short window makes the decoder repeat itself. Four seconds of encoder states from the silent part of a padded
30 s clip, computed once at load, cure that: an utterance of 1.6 s costs 60 ms instead of 640. What comes out doubtful
or repeats itself is read again in a window of 10 s; on noisy telephone speech that takes 5 of 100 words from the errors
for a third more time, on clear speech it hardly ever happens. Workers are one thread each, which gives more throughput
than several threads on one utterance.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sipserver.audio.frame import RATE_HZ, Samples
from sipserver.errors import ConfigError, ProviderRejected
from sipserver.speech import languages, models, quiet
from sipserver.speech.contract import SttCapabilities, Transcription
from sipserver.speech.mel import FRAMES_PER_S, LONGEST_S, Floats, babble, log_mel
from sipserver.speech.settings import WhisperSettings
from sipserver.speech.work import WorkQueue

STATES_PER_S = FRAMES_PER_S // 2
LOWEST_LOG_PROBABILITY = -1.2
DOUBTFUL_LOG_PROBABILITY = -0.8
HOPELESS_LOG_PROBABILITY = -2.0
HIGHEST_NO_SPEECH = 0.6

_TAIL_S = 4.0
_PAD_S = 0.2
_SHORTEST_WINDOW_S = 1.2
_MULTILINGUAL_SHORT_S = 1.2
_SECOND_WINDOW_S = 10.0
_LIKE_S = 0.6
_SETTLED_S = 0.5
_TOKENS_PER_S = 7
_TOKENS_AT_LEAST = 8
_REPEATED = re.compile(r"\b(\w+(?:\W+\w+){2,}?)\W+\1\b|\b(\w+)(?:\W+\2\b){3,}", re.IGNORECASE)
_FILES = ("config.json", "model.bin", "tokenizer.json")


@dataclass(frozen=True, slots=True)
class Utterance:
    """sound: float32 in [-1, 1]. language: a primary tag or `auto`. window_s: how much the encoder looks at."""

    sound: Floats
    language: str
    window_s: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What was understood; log_probability: the average of its tokens. no_speech: how sure the model is of none."""

    text: str
    language: str
    log_probability: float
    no_speech: float

    @property
    def is_speech(self) -> bool:
        return self.log_probability >= LOWEST_LOG_PROBABILITY and self.no_speech <= HIGHEST_NO_SPEECH

    @property
    def repeats(self) -> bool:
        """Three words or more twice in a row, or one word four times: the decoder may have lost its way."""
        return _REPEATED.search(self.text) is not None

    @property
    def doubtful(self) -> bool:
        """Worth a second look: neither clear, nor so bad that it must be noise."""
        if self.no_speech > HIGHEST_NO_SPEECH:
            return False
        return HOPELESS_LOG_PROBABILITY < self.log_probability < DOUBTFUL_LOG_PROBABILITY or self.repeats


def window_s(seconds: float, multilingual: bool) -> float:
    """How long a window an utterance gets, in whole encoder states.

    Multilingual models misread words of a second in a tight window (30 % errors against 3 in a 10 s one).
    """
    if multilingual and seconds < _MULTILINGUAL_SHORT_S:
        return _SECOND_WINDOW_S
    wanted = min(LONGEST_S, max(seconds + _PAD_S, _SHORTEST_WINDOW_S))
    return math.ceil(wanted * STATES_PER_S) / STATES_PER_S


def alike(first: Utterance, other: Utterance) -> bool:
    """Worth one batch: the shorter ones are padded to the longest window, so windows must be about as long."""
    return abs(first.window_s - other.window_s) <= max(_LIKE_S, 0.2 * first.window_s)


class WhisperModel:
    """The model itself. Methods block, may run in several threads at a time, and release the GIL while they work."""

    def __init__(self, folder: Path, device: str, compute_type: str, workers: int) -> None:
        ctranslate2: Any = importlib.import_module("ctranslate2")
        tokenizers: Any = importlib.import_module("tokenizers")
        if device == "auto":
            device = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
        if device == "cuda" and compute_type == "int8":
            compute_type = "int8_float16"
        self._view = ctranslate2.StorageView.from_array
        self._model = ctranslate2.models.Whisper(
            str(folder), device=device, compute_type=compute_type, inter_threads=workers, intra_threads=1
        )
        self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.device = device
        self.multilingual = bool(self._model.is_multilingual)
        self.languages = self._languages(folder) if self.multilingual else frozenset({"en"})
        self._start = self._token("<|startoftranscript|>")
        self._plain = self._token("<|notimestamps|>")
        self._end = self._token("<|endoftext|>")
        reference = babble()
        self._silent_from = int((len(reference) / RATE_HZ + _SETTLED_S) * STATES_PER_S)
        self._silence = self._encode([reference], LONGEST_S)[0]

    def read(self, utterances: Sequence[Utterance]) -> list[Reading]:
        """Transcribe a batch, and what came out doubtful once more in a longer window."""
        readings = self._look(utterances, max(utterance.window_s for utterance in utterances))
        doubtful = [number for number, reading in enumerate(readings) if reading.doubtful]
        seconds = max((len(utterances[number].sound) for number in doubtful), default=0) / RATE_HZ
        window = _SECOND_WINDOW_S if seconds + _PAD_S <= _SECOND_WINDOW_S else LONGEST_S
        again = [number for number in doubtful if utterances[number].window_s < window]
        if again:
            for number, second in zip(again, self._look([utterances[n] for n in again], window), strict=True):
                first = readings[number]
                if first.repeats or second.log_probability > first.log_probability:
                    readings[number] = second
        return [reading if reading.is_speech else dataclasses.replace(reading, text="") for reading in readings]

    def _look(self, utterances: Sequence[Utterance], window: float) -> list[Reading]:
        states = self._encode([utterance.sound for utterance in utterances], window)
        known = states.shape[1]
        tail = self._silence[max(known, self._silent_from) :][: int(_TAIL_S * STATES_PER_S)]
        if len(tail):
            states = np.concatenate([states, np.repeat(tail[None], len(states), axis=0)], axis=1)
        encoded = self._view(np.ascontiguousarray(states))
        spoken = self._spoken(utterances, encoded)
        prompts = [self._prompt(language) for language in spoken]
        seconds = max(len(utterance.sound) for utterance in utterances) / RATE_HZ
        longest = len(prompts[0]) + int(seconds * _TOKENS_PER_S) + _TOKENS_AT_LEAST
        results = self._model.generate(
            encoded, prompts, beam_size=1, max_length=longest, return_scores=True, return_no_speech_prob=True
        )
        return [self._reading(result, language) for result, language in zip(results, spoken, strict=True)]

    def _encode(self, sounds: Sequence[Floats], window: float) -> Floats:
        """Shape (batch, window * 50, width)."""
        mels = np.stack([log_mel(sound, window, self._model.n_mels) for sound in sounds])
        return np.array(self._model.encode(self._view(mels), to_cpu=True))

    def _spoken(self, utterances: Sequence[Utterance], encoded: Any) -> list[str]:
        if not self.multilingual:
            return ["en"] * len(utterances)
        if all(utterance.language != languages.AUTO for utterance in utterances):
            return [utterance.language for utterance in utterances]
        heard = [ranking[0][0].strip("<|>") for ranking in self._model.detect_language(encoded)]
        given = [utterance.language for utterance in utterances]
        return [best if tag == languages.AUTO else tag for tag, best in zip(given, heard, strict=True)]

    def _prompt(self, language: str) -> list[int]:
        if not self.multilingual:
            return [self._start, self._plain]
        return [self._start, self._token(f"<|{language}|>"), self._token("<|transcribe|>"), self._plain]

    def _reading(self, result: Any, language: str) -> Reading:
        tokens = [token for token in result.sequences_ids[0] if token < self._end]
        text = self._tokenizer.decode(tokens).strip()
        return Reading(text, language, float(result.scores[0]), float(result.no_speech_prob))

    def _languages(self, folder: Path) -> frozenset[str]:
        """The tags whose tokens the model's configuration lists."""
        numbers = json.loads((folder / "config.json").read_text(encoding="utf-8"))["lang_ids"]
        tokens = [self._tokenizer.id_to_token(number) for number in numbers]
        return frozenset(token.strip("<|>") for token in tokens if token)

    def _token(self, token: str) -> int:
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise ConfigError(f"the model's tokenizer does not know {token}: is it a Whisper model?")
        return int(number)


class Whisper:
    """Satisfies `contract.Stt`. queue: depth and counters for the metrics."""

    def __init__(self, name: str, model: WhisperModel, settings: WhisperSettings) -> None:
        self.name = name
        self.capabilities = SttCapabilities(model.languages, model.multilingual, True, settings.vendor, settings.model)
        self._model = model
        self.queue: WorkQueue[Utterance, Reading] = WorkQueue(
            name,
            model.read,
            threads=settings.workers,
            bound=settings.queue,
            timeout_s=settings.timeout_s,
            batch=settings.batch,
            alike=alike,
        )

    @property
    def depth(self) -> int:
        return self.queue.depth

    async def transcribe(self, samples: Samples, *, language: str = "auto", speculative: bool = False) -> Transcription:
        tag = self._spoken(language)
        seconds = len(samples) / RATE_HZ
        if seconds > LONGEST_S:
            raise ProviderRejected(self.name, f"an utterance of {seconds:.0f} s is longer than {LONGEST_S:.0f} s")
        if not len(samples):
            return Transcription("", tag, None, 0, 0)
        sound = samples.astype(np.float32) / np.float32(32768)
        utterance = Utterance(sound, tag, window_s(seconds, self._model.multilingual))
        done = await self.queue.submit(utterance, speculative=speculative)
        reading = done.value
        return Transcription(reading.text, reading.language, reading.log_probability, done.queued_ms, done.took_ms)

    async def close(self) -> None:
        await self.queue.close()

    def _spoken(self, language: str) -> str:
        tag = languages.primary(language)
        if tag == languages.AUTO:
            return tag if self._model.multilingual else "en"
        if tag not in self._model.languages:
            raise ProviderRejected(self.name, f"the model does not understand {language}")
        return tag


async def load(name: str, settings: WhisperSettings, folder: Path) -> Whisper:
    """Load the model in a thread and run it once, so that the first caller does not wait. Raises ModelMissing."""
    path = models.find(settings.model, folder)
    if missing := [file for file in _FILES if not (path / file).is_file()]:
        raise ConfigError(f"{path} is no CTranslate2 Whisper model: {', '.join(missing)} not there")
    return Whisper(name, await quiet.load(lambda: _load(settings, path)), settings)


def _load(settings: WhisperSettings, path: Path) -> WhisperModel:
    try:
        model = WhisperModel(path, settings.device, settings.compute_type, settings.workers)
    except (RuntimeError, ValueError) as problem:
        raise ConfigError(f"{path} could not be loaded: {problem}") from problem
    model.read([Utterance(babble(), "en", window_s(1.5, model.multilingual))])
    return model
