"""How speech sounds after each codec, by PESQ (ITU-T P.862, P.862.2) against what went in; Opus also with losses.

espeak-ng speaks: the same sound on every machine. PESQ marks its buzzing lower than people's voices (Opus at 24 kbit/s
has 4.5 with a Piper voice); the thresholds lie a little under what was measured, to catch what gets worse.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
from pesq import pesq

from sipserver.audio.frame import Samples
from sipserver.audio.resample import resample
from sipserver.codecs import table
from sipserver.codecs.opus import OpusDecoder, OpusEncoder
from tests.fakes.clips import espeak
from tests.fakes.wire import packets

SENTENCES = (
    "Thank you for calling the municipal library. We are open from nine in the morning until half past six.",
    "If you want to extend a loan, please have your card ready, and tell me its number.",
    "Your appointment is on Thursday, at a quarter past ten, in the second room on the left.",
)
LEAST_BY_BIT_RATE = {12_000: 2.4, 16_000: 2.9, 24_000: 3.5, 32_000: 4.0, 64_000: 4.4}


@functools.cache
def speech(rate_hz: int) -> tuple[Samples, ...]:
    return tuple(resample(espeak(sentence), 16_000, rate_hz) for sentence in SENTENCES)


def quality(said: Samples, heard: Samples, rate_hz: int) -> float:
    """1 (bad) to 4.6. Narrow band below 16 kHz, else wide band: the scales cannot be compared with each other."""
    judged_hz = 8_000 if rate_hz < 16_000 else 16_000
    one, other = (resample(each, rate_hz, judged_hz) for each in (said[: len(heard)], heard))
    return float(pesq(judged_hz, one, other, "nb" if judged_hz == 8_000 else "wb"))


@pytest.mark.parametrize(
    ("codec", "least"),
    [
        (table.PCMU, 3.7),
        (table.PCMA, 3.7),
        (table.G722, 2.8),
        (table.L16_8K, 4.5),
        (table.L16_16K, 4.6),
        (table.L16_24K, 4.6),
        (table.OPUS.at(8_000), 3.8),
        (table.OPUS.at(12_000), 3.3),
        (table.OPUS.at(16_000), 2.7),
        (table.OPUS.at(24_000), 2.5),
        (table.OPUS.at(48_000), 2.5),
    ],
    ids=lambda value: f"{value.encoding}-{value.audio_hz}" if isinstance(value, table.Codec) else "",
)
def test_speech_sounds_as_it_should(codec: table.Codec, least: float) -> None:
    marks = []
    for said in speech(codec.audio_hz):
        decoder = table.decoder(codec)
        heard = np.concatenate([decoder.decode(payload) for payload in packets(codec, said)])
        marks.append(quality(said, heard, codec.audio_hz))
    assert np.mean(marks) >= least


@pytest.mark.parametrize("bit_rate", LEAST_BY_BIT_RATE)
def test_opus_sounds_the_better_the_more_bits_it_has(bit_rate: int) -> None:
    least = LEAST_BY_BIT_RATE[bit_rate]
    marks = []
    for said in speech(16_000):
        encoder, decoder = OpusEncoder(bit_rate=bit_rate, loss_percent=0), OpusDecoder()
        pieces = [said[start : start + 320] for start in range(0, len(said) - 319, 320)]
        marks.append(quality(said, np.concatenate([decoder.decode(encoder.encode(piece)) for piece in pieces]), 16_000))
    assert np.mean(marks) >= least


def received(payloads: list[bytes], lost: np.ndarray, way: str) -> Samples:
    decoder = OpusDecoder()
    heard = []
    for number, payload in enumerate(payloads):
        if not lost[number]:
            heard.append(decoder.decode(payload))
        elif way == "silence":
            heard.append(np.zeros(320, np.int16))
        elif way == "fec" and number + 1 < len(payloads) and not lost[number + 1]:
            heard.append(decoder.decode_fec(payloads[number + 1]))
        else:
            heard.append(decoder.conceal())
    return np.concatenate(heard)


@pytest.mark.parametrize(("loss_percent", "least_by_fec"), [(5, 2.7), (10, 2.4)])
def test_fec_beats_concealment_and_that_beats_silence(loss_percent: int, least_by_fec: float) -> None:
    marks: dict[str, list[float]] = {"fec": [], "concealed": [], "silence": []}
    for seed, said in enumerate(speech(16_000)):
        encoder = OpusEncoder(loss_percent=loss_percent)
        payloads = [encoder.encode(said[start : start + 320]) for start in range(0, len(said) - 319, 320)]
        lost = np.random.default_rng(seed).random(len(payloads)) < loss_percent / 100
        for way, found in marks.items():
            found.append(quality(said, received(payloads, lost, way), 16_000))
    fec, concealed, silence = (float(np.mean(found)) for found in marks.values())
    assert fec >= least_by_fec
    assert fec > concealed + 0.3
    assert concealed > silence + 0.1
