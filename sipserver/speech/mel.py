"""What Whisper hears: the log-mel spectrogram, and a speech-like sound to learn from what silence looks like.

Pure functions on float32 sound in [-1, 1] at 16 kHz. The spectrogram is the one of Whisper's reference code (radford et
al. 2022, section 2.2): 25 ms windows every 10 ms, Slaney mel filters, log10, clamped to 8 below the maximum.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from sipserver.audio.frame import RATE_HZ

FRAMES_PER_S = 100
LONGEST_S = 30.0

_WINDOW = 400
_HOP = 160
_LINEAR_UP_TO_MEL = 15

Floats = NDArray[np.float32]


@functools.cache
def filters(mels: int) -> Floats:
    """Slaney's triangles: linear below 1 kHz, logarithmic above. Shape (mels, 201)."""
    hz = np.fft.rfftfreq(_WINDOW, 1 / RATE_HZ)
    top = _LINEAR_UP_TO_MEL + np.log(RATE_HZ / 2 / 1000) * 27 / np.log(6.4)
    mel = np.linspace(0, top, mels + 2)
    logarithmic = 1000 * np.exp(np.log(6.4) / 27 * (mel - _LINEAR_UP_TO_MEL))
    edges = np.where(mel < _LINEAR_UP_TO_MEL, mel * 200 / 3, logarithmic)
    width, ramp = np.diff(edges), edges[:, None] - hz[None]
    triangles = np.maximum(0, np.minimum(-ramp[:-2] / width[:-1, None], ramp[2:] / width[1:, None]))
    scaled: Floats = (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)
    return scaled


_HANN: Floats = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)


def log_mel(sound: Floats, window_s: float, mels: int = 80) -> Floats:
    """Shape (n,) to (mels, window_s * 100): cut, or padded with silence, to the window."""
    length = round(window_s * RATE_HZ)
    padded = np.zeros(length, np.float32)
    padded[: len(sound)] = sound[:length]
    padded = np.pad(padded, _WINDOW // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP][: length // _HOP]
    spectrum = np.fft.rfft(frames * _HANN, axis=1)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    levels = np.log10(np.maximum(power @ filters(mels).T, 1e-10)).T
    levels = np.maximum(levels, levels.max() - 8.0)
    normal: Floats = np.ascontiguousarray((levels + 4.0) / 4.0, np.float32)
    return normal


def babble(seconds: float = 1.5) -> Floats:
    """A voice that says nothing: five vowels from a pulse train through formants. The same sound every time.

    It stands before the silence whose encoder states Whisper is given after a short utterance; speech gives the same
    word error rates there as this does, noise and nothing give worse ones.
    """
    vowels_hz = ((700, 1200, 2500), (300, 2300, 3000), (400, 800, 2400), (500, 1800, 2500), (320, 900, 2300))
    bandwidths_hz = (80, 100, 150)
    length = int(seconds * RATE_HZ)
    pitch_hz = 120 + 20 * np.sin(2 * np.pi * 1.3 * np.arange(length) / RATE_HZ)
    pulses = (np.cumsum(pitch_hz) / RATE_HZ % 1 < pitch_hz / RATE_HZ).astype(np.float64)
    voice = pulses + np.random.default_rng(3).normal(0, 0.01, length)
    parts = []
    for source, formants_hz in zip(np.array_split(voice, len(vowels_hz)), vowels_hz, strict=True):
        turn = np.exp(-2j * np.pi * np.fft.rfftfreq(2 * len(source)))
        response = np.zeros_like(turn)
        for formant_hz, bandwidth_hz in zip(formants_hz, bandwidths_hz, strict=True):
            pole = np.exp(-np.pi * bandwidth_hz / RATE_HZ)
            angle = 2 * np.pi * formant_hz / RATE_HZ
            response += 1 / (1 - 2 * pole * np.cos(angle) * turn + pole**2 * turn**2)
        vowel = np.fft.irfft(np.fft.rfft(source, 2 * len(source)) * response)[: len(source)]
        parts.append(vowel * np.hanning(len(source)) ** 0.3)
    sound = np.concatenate(parts)
    loud: Floats = (sound / np.abs(sound).max() / 2).astype(np.float32)
    return loud
