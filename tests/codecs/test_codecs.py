"""What holds for every codec: the quality of speech that went through, any bytes, losses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sipserver.audio.frame import Samples
from sipserver.codecs import table
from sipserver.errors import BadPayload
from tests.fakes.voice import voice
from tests.fakes.wire import packets

ALL = pytest.mark.parametrize("codec", table.CODECS, ids=lambda codec: codec.rtpmap)
OPUS_RATES_HZ = (8_000, 12_000, 16_000, 24_000, 48_000)


def decoded(codec: table.Codec, sound: Samples) -> Samples:
    decoder = table.decoder(codec)
    return np.concatenate([decoder.decode(payload) for payload in packets(codec, sound)])


def aligned(sound: Samples, heard: Samples, rate_hz: int) -> tuple[Samples, Samples, float]:
    """Both without the codec's delay and the edges, and the delay in ms."""
    count = len(sound)
    spectra = [np.fft.rfft(each[:count].astype(float), 2 * count) for each in (sound, heard)]
    lag = int(np.fft.irfft(spectra[1] * spectra[0].conj())[: rate_hz // 20].argmax())
    inner = slice(rate_hz // 4, count - rate_hz // 4)
    return sound[inner].astype(float), heard[lag:][inner].astype(float), lag / rate_hz * 1000


def snr_db(sound: Samples, heard: Samples) -> float:
    error = np.sum((sound - heard) ** 2)
    return float(10 * np.log10(np.sum(sound**2) / error)) if error else float("inf")


def likeness(sound: Samples, heard: Samples, rate_hz: int) -> float:
    """Median correlation over the 20 ms segments in which somebody speaks."""
    length = rate_hz // 50
    count = len(sound) // length
    pairs = zip(sound[: count * length].reshape(count, -1), heard[: count * length].reshape(count, -1), strict=True)
    return float(np.median([np.corrcoef(one, two)[0, 1] for one, two in pairs if one.std() > 300]))


@pytest.mark.parametrize(
    ("codec", "least_snr_db", "least_likeness", "most_delay_ms"),
    [
        (table.PCMU, 35, 0.999, 0),
        (table.PCMA, 35, 0.999, 0),
        (table.G722, 20, 0.99, 2),
        (table.L16_8K, 200, 1, 0),
        (table.L16_16K, 200, 1, 0),
        (table.L16_24K, 200, 1, 0),
        *((table.OPUS.at(rate_hz), 5, 0.8, 10) for rate_hz in OPUS_RATES_HZ),
    ],
    ids=lambda value: f"{value.encoding}-{value.audio_hz}" if isinstance(value, table.Codec) else "",
)
def test_speech_comes_through(
    codec: table.Codec, least_snr_db: float, least_likeness: float, most_delay_ms: float
) -> None:
    sound = voice(5, rate_hz=codec.audio_hz)
    said, heard, delay_ms = aligned(sound, decoded(codec, sound), codec.audio_hz)
    assert snr_db(said, heard) >= least_snr_db
    assert likeness(said, heard, codec.audio_hz) >= least_likeness - 1e-9
    assert delay_ms <= most_delay_ms


@ALL
def test_20_ms_in_are_20_ms_out_from_the_first_packet_on(codec: table.Codec) -> None:
    decoder = table.decoder(codec)
    for payload in packets(codec, voice(0.5, rate_hz=codec.audio_hz)):
        samples = decoder.decode(payload)
        assert samples.dtype == np.int16
        assert samples.shape == (codec.audio_hz // 50,)


@ALL
@settings(max_examples=60)
@given(payloads=st.lists(st.binary(max_size=400), max_size=8))
def test_any_bytes_are_samples_or_a_bad_payload(codec: table.Codec, payloads: list[bytes]) -> None:
    decoder = table.decoder(codec)
    for payload in payloads:
        try:
            samples = decoder.decode(payload)
        except BadPayload:
            continue
        assert samples.dtype == np.int16
        assert 0 < len(samples) <= max(codec.audio_hz * 120 // 1000, 2 * len(payload))
        assert len(decoder.conceal(20)) >= codec.audio_hz // 50


@ALL
@settings(max_examples=30)
@given(junk=st.binary(min_size=1, max_size=200), flips=st.integers(0, 2**31))
def test_damage_heals(codec: table.Codec, junk: bytes, flips: int) -> None:
    """Junk, a truncated and a bit-flipped packet; a second later the speech is as good as before."""
    sound = voice(2, rate_hz=codec.audio_hz)
    payloads = packets(codec, sound)
    flipped = bytearray(payloads[10])
    flipped[flips % len(flipped)] ^= 1 << flips % 8
    decoder = table.decoder(codec)
    for payload in (*payloads[:10], junk, payloads[10][: len(payloads[10]) // 2], bytes(flipped)):
        try:
            decoder.decode(payload)
        except BadPayload:
            decoder.conceal(20)
    clean = table.decoder(codec)
    for payload in payloads[:11]:
        clean.decode(payload)
    pairs = [(decoder.decode(payload), clean.decode(payload)) for payload in payloads[11:]]
    damaged, untouched = (np.concatenate([pair[side] for pair in pairs[40:]]).astype(float) for side in (0, 1))
    assert np.corrcoef(damaged, untouched)[0, 1] > 0.95


@ALL
@pytest.mark.parametrize("payload", [b"", b"\xff"])
def test_what_cannot_be_a_packet_is_refused_or_short(codec: table.Codec, payload: bytes) -> None:
    decoder = table.decoder(codec)
    if payload and codec.encoding in {"PCMU", "PCMA", "G722"}:
        assert 1 <= len(decoder.decode(payload)) <= 2
    else:
        with pytest.raises(BadPayload):
            decoder.decode(payload)


@ALL
def test_a_loss_sounds_like_what_came_before_and_fades(codec: table.Codec) -> None:
    rate_hz = codec.audio_hz
    tone = np.round(8000 * np.sin(2 * np.pi * 400 * np.arange(rate_hz) / rate_hz)).astype(np.int16)
    decoder = table.decoder(codec)
    for payload in packets(codec, tone):
        decoder.decode(payload)
    losses = [decoder.conceal(20) for _ in range(40)]
    assert all(len(each) == rate_hz // 50 for each in losses)
    assert np.std(losses[0]) > 2000
    assert np.std(losses[-1]) < 0.5 * np.std(losses[0])


@ALL
def test_before_the_first_packet_a_loss_is_silence(codec: table.Codec) -> None:
    samples = table.decoder(codec).conceal(20)
    assert samples.shape == (codec.audio_hz // 50,)
    assert not samples.any()


@ALL
def test_strided_samples_encode_like_others(codec: table.Codec) -> None:
    sound = voice(0.02, rate_hz=codec.audio_hz)
    strided = np.repeat(sound, 2)[::2]
    assert table.encoder(codec).encode(strided) == table.encoder(codec).encode(sound)
