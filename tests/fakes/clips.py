"""Synthetic callers: espeak-ng sentences, the way through G.711, and how far a transcript is off."""

from __future__ import annotations

import functools
import re
import subprocess
import warnings
from collections.abc import Iterable

import numpy as np

from sipserver.audio.frame import Samples
from sipserver.audio.resample import resample

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop


@functools.cache
def espeak(text: str, voice: str = "en-us", words_per_minute: int = 150) -> Samples:
    """16 kHz, from the program itself, so that a test of the vendor does not rest on the vendor."""
    command = ["espeak-ng", "--stdin", "--stdout", "-v", voice, "-s", str(words_per_minute)]
    sound = subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout[44:]
    return resample(np.frombuffer(sound, np.int16), 22_050)


def over_the_phone(samples: Samples) -> Samples:
    """16 kHz to 8 kHz, mu-law and back."""
    narrow = resample(samples, 16_000, 8_000)
    coded = audioop.ulaw2lin(audioop.lin2ulaw(narrow.tobytes(), 2), 2)
    return resample(np.frombuffer(coded, np.int16), 8_000)


def words(text: str) -> list[str]:
    return re.sub(r"[^a-z0-9' ]", "", text.lower().replace("-", " ")).split()


def word_errors(said: str, heard: str) -> int:
    """Substitutions, deletions and insertions (Levenshtein distance over words)."""
    wanted, got = words(said), words(heard)
    row = list(range(len(got) + 1))
    for number, word in enumerate(wanted, 1):
        diagonal, row[0] = row[0], number
        for column, other in enumerate(got, 1):
            diagonal, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, diagonal + (word != other))
    return row[-1]


def word_error_rate(pairs: Iterable[tuple[str, str]]) -> float:
    """Over all (said, heard) together."""
    everything = list(pairs)
    return sum(word_errors(said, heard) for said, heard in everything) / sum(len(words(said)) for said, _ in everything)
