"""What only Opus has: packet times, FEC on both sides, DTX, settings that change while it runs."""

from __future__ import annotations

import gc
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from sipserver.audio.frame import Samples
from sipserver.codecs import libopus
from sipserver.codecs.opus import OpusDecoder, OpusEncoder
from sipserver.errors import BadPayload, ConfigError
from tests.fakes.voice import voice


def payloads_of(encoder: OpusEncoder, sound: Samples, count: int = 320) -> list[bytes]:
    return [encoder.encode(sound[start : start + count]) for start in range(0, len(sound) - count + 1, count)]


def noise_db(wanted: Samples, heard: Samples) -> float:
    """The error against the sound, in dB; lower is better."""
    error = wanted.astype(float) - heard
    return float(10 * np.log10(np.sum(error**2) / np.sum(wanted.astype(float) ** 2)))


@pytest.mark.parametrize("ptime_ms", [10, 20, 40, 60])
@pytest.mark.parametrize("rate_hz", [8_000, 12_000, 16_000, 24_000, 48_000])
def test_packet_times(ptime_ms: int, rate_hz: int) -> None:
    encoder, decoder = OpusEncoder(rate_hz, ptime_ms=ptime_ms), OpusDecoder(rate_hz)
    count = rate_hz * ptime_ms // 1000
    for payload in payloads_of(encoder, voice(count * 5 / rate_hz, rate_hz=rate_hz), count):
        assert 0 < len(payload) < 400
        assert len(decoder.decode(payload)) == count
    assert len(decoder.conceal(60)) == rate_hz * 60 // 1000


def test_other_lengths_and_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="320 samples"):
        OpusEncoder(16_000).encode(np.zeros(160, np.int16))
    with pytest.raises(ValueError, match="30 ms"):
        OpusEncoder(16_000, ptime_ms=30)
    with pytest.raises(ValueError, match="request"):
        OpusEncoder(complexity=11)


@pytest.mark.parametrize(
    "change", [{"bit_rate": 5_999}, {"loss_percent": 101}, {"bit_rate": 64_000, "loss_percent": -1}]
)
def test_a_refused_change_changes_nothing(change: dict[str, Any]) -> None:
    sound = voice(2, rate_hz=16_000)
    changed = OpusEncoder()
    with pytest.raises(ValueError, match=r"bit/s|percent"):
        changed.adapt(**change)
    assert payloads_of(changed, sound) == payloads_of(OpusEncoder(), sound)


def test_the_bit_rate_changes_while_it_runs() -> None:
    sound, encoder, decoder = voice(3, rate_hz=16_000), OpusEncoder(bit_rate=12_000), OpusDecoder()
    sizes = []
    for bit_rate in (12_000, 40_000, 16_000):
        encoder.adapt(bit_rate=bit_rate)
        payloads = payloads_of(encoder, sound)
        sizes.append(8 * sum(map(len, payloads)) / 3)
        assert sum(len(decoder.decode(payload)) for payload in payloads) == len(sound)
    assert sizes[1] > 1.7 * sizes[0]
    assert sizes[1] > 1.5 * sizes[2]


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 48_000])
def test_the_packet_after_a_loss_tells_of_the_lost_one(rate_hz: int) -> None:
    """Every tenth packet is lost: its copy is nearer to what would have been heard than concealment, and that than
    silence."""
    count = rate_hz // 50
    payloads = payloads_of(OpusEncoder(rate_hz, bit_rate=32_000, loss_percent=10), voice(10, rate_hz=rate_hz), count)
    whole, by_fec, by_concealment = OpusDecoder(rate_hz), OpusDecoder(rate_hz), OpusDecoder(rate_hz)
    lost: dict[str, list[Samples]] = {"wanted": [], "fec": [], "concealed": []}
    for number, payload in enumerate(payloads[:-1]):
        wanted = whole.decode(payload)
        if number % 10 != 5:
            by_fec.decode(payload), by_concealment.decode(payload)
            continue
        lost["wanted"].append(wanted)
        lost["fec"].append(by_fec.decode_fec(payloads[number + 1]))
        lost["concealed"].append(by_concealment.conceal())
        assert len(lost["fec"][-1]) == count
    wanted, fec, concealed = (np.concatenate(lost[name]) for name in ("wanted", "fec", "concealed"))
    assert noise_db(wanted, fec) < noise_db(wanted, concealed) - 3
    assert noise_db(wanted, concealed) < -0.5


@pytest.mark.parametrize("lost", [3, 10, 50])
def test_after_longer_losses_the_end_is_the_copy(lost: int) -> None:
    payloads = payloads_of(OpusEncoder(bit_rate=32_000), voice(6, rate_hz=16_000))
    ends: dict[str, list[Samples]] = {"wanted": [], "fec": [], "concealed": []}
    for first in range(20, 220, 10):
        whole, by_fec, by_concealment = OpusDecoder(), OpusDecoder(), OpusDecoder()
        for payload in payloads[:first]:
            whole.decode(payload), by_fec.decode(payload), by_concealment.decode(payload)
        ends["wanted"].append([whole.decode(payload) for payload in payloads[first : first + lost]][-1])
        heard = by_fec.decode_fec(payloads[first + lost], 20 * lost)
        assert len(heard) == 320 * lost
        ends["fec"].append(heard[-320:])
        ends["concealed"].append(by_concealment.conceal(20 * lost)[-320:])
    wanted, fec, concealed = (np.concatenate(ends[name]) for name in ("wanted", "fec", "concealed"))
    assert noise_db(wanted, fec) < noise_db(wanted, concealed) - 1


def test_without_a_copy_fec_is_concealment() -> None:
    payloads = payloads_of(OpusEncoder(loss_percent=0), voice(2, rate_hz=16_000))
    one, other = OpusDecoder(), OpusDecoder()
    for payload in payloads[:40]:
        one.decode(payload), other.decode(payload)
    assert np.array_equal(one.decode_fec(payloads[41]), other.conceal())


def has_copy(payload: bytes) -> bool:
    """RFC 6716, 3.1 and 4.2.3: SILK's and hybrid packets of one frame begin with the flags of voice and of a copy."""
    return payload[0] >> 3 < 16 and bool(payload[1] & 0x40)


def test_expected_losses_change_while_it_runs() -> None:
    """The copies begin and end with the change, give or take the packet that knows of it first."""
    sound, encoder = voice(2, rate_hz=16_000), OpusEncoder(bit_rate=32_000, loss_percent=0)
    copies = []
    for loss_percent in (0, 20, 0):
        encoder.adapt(loss_percent=loss_percent)
        copies.append(sum(map(has_copy, payloads_of(encoder, sound)[1:])))
    assert copies[1] > 30
    assert copies[0] == copies[2] == 0


def test_dtx_sends_next_to_nothing_in_pauses() -> None:
    """5 s of speech, 5 s of a quiet room, speech: all packets, few, all. Speech is heard the same afterwards."""
    room = np.random.default_rng(1).normal(0, 4, 80_000).round().astype(np.int16)
    speech = voice(5, rate_hz=16_000)
    encoder, always = OpusEncoder(dtx=True), OpusEncoder()
    assert all(payloads_of(always, room))
    sent = [sum(map(bool, payloads_of(encoder, sound))) for sound in (speech, room, speech)]
    assert sent[0] > 200
    assert sent[1] < 80
    assert sent[2] > 200
    encoder.adapt(dtx=False)
    assert all(payloads_of(encoder, room))


def test_the_gaps_of_dtx_are_quiet_and_end_with_the_voice() -> None:
    room = np.random.default_rng(1).normal(0, 4, 32_000).round().astype(np.int16)
    sound = np.concatenate((voice(2, rate_hz=16_000), room, voice(2, rate_hz=16_000)))
    decoder = OpusDecoder()
    heard = np.concatenate(
        [decoder.decode(each) if each else decoder.conceal() for each in payloads_of(OpusEncoder(dtx=True), sound)]
    )
    assert len(heard) == len(sound)
    assert heard[48_000:62_000].std() < 40
    assert heard[66_000:].std() > 0.7 * sound[66_000:].std()


def test_packets_of_dtx_and_stereo_are_understood() -> None:
    """A packet of nothing but its first byte is silence or concealment; the stereo bit gives mono all the same."""
    decoder = OpusDecoder(16_000)
    wideband_20_ms = 9 << 3
    assert len(decoder.decode(bytes((wideband_20_ms,)))) == 320
    assert len(decoder.decode(bytes((wideband_20_ms | 0b100,)))) == 320


def test_giant_packets_are_refused() -> None:
    for refused in (OpusDecoder().decode, OpusDecoder().decode_fec):
        with pytest.raises(BadPayload, match="9000 bytes"):
            refused(bytes(9000))


def test_concealment_is_as_long_as_was_asked_in_steps() -> None:
    decoder = OpusDecoder(8_000)
    assert [len(decoder.conceal(duration_ms)) for duration_ms in (0, 1, 5, 20, 250)] == [0, 20, 40, 160, 2000]


def test_codecs_give_their_memory_back() -> None:
    program = """
import gc, resource
from sipserver.codecs.opus import OpusDecoder, OpusEncoder
def some():
    for _ in range(100): OpusEncoder(48_000), OpusDecoder(48_000)
    gc.collect()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
some()
before = some()
for _ in range(10): after = some()
assert after - before < 4000, (before, after)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_machine_without_libopus_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libopus, "LIBRARY", "libopus-that-is-not-here.so.0")
    libopus.library.cache_clear()
    try:
        with pytest.raises(ConfigError, match="apt-get install libopus0"):
            OpusEncoder()
    finally:
        libopus.library.cache_clear()
        gc.collect()
