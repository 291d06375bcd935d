"""What only one codec has: the standard's values, byte order, Opus' packet times, FEC and concealment."""

from __future__ import annotations

import numpy as np
import pytest

from sipserver.codecs import table
from sipserver.codecs.concealment import Fading
from sipserver.codecs.g722 import G722Encoder
from sipserver.codecs.opus import OpusDecoder, OpusEncoder
from sipserver.errors import BadPayload
from tests.fakes.voice import voice


@pytest.mark.parametrize(
    ("codec", "sample", "byte"),
    [
        (table.PCMU, 0, 0xFF),
        (table.PCMU, 32_124, 0x80),
        (table.PCMU, -32_124, 0x00),
        (table.PCMA, 8, 0xD5),
        (table.PCMA, 32_256, 0xAA),
        (table.PCMA, -32_256, 0x2A),
    ],
)
def test_g711_has_the_values_of_the_standard(codec: table.Codec, sample: int, byte: int) -> None:
    assert table.encoder(codec).encode(np.array([sample], np.int16)) == bytes((byte,))
    assert table.decoder(codec).decode(bytes((byte,))).tolist() == [sample]


def test_l16_is_in_network_byte_order() -> None:
    assert table.encoder(table.L16_16K).encode(np.array([1, -2], np.int16)) == b"\x00\x01\xff\xfe"
    assert table.decoder(table.L16_16K).decode(b"\x00\x01\xff\xfe").tolist() == [1, -2]


def test_g722_takes_pairs() -> None:
    assert len(G722Encoder().encode(np.zeros(320, np.int16))) == 160
    with pytest.raises(ValueError, match="pairs"):
        G722Encoder().encode(np.zeros(321, np.int16))


def test_fading_goes_on_where_it_stopped() -> None:
    whole, parts = Fading(8_000), Fading(8_000)
    for fading in (whole, parts):
        fading.heard(voice(0.1, rate_hz=8_000))
    assert np.array_equal(whole.conceal(80), np.concatenate([parts.conceal(20) for _ in range(4)]))
    assert not whole.conceal(20).any()


@pytest.mark.parametrize("ptime_ms", [10, 20, 40, 60])
@pytest.mark.parametrize("rate_hz", [8_000, 48_000])
def test_opus_packet_times(ptime_ms: int, rate_hz: int) -> None:
    encoder, decoder = OpusEncoder(rate_hz, ptime_ms=ptime_ms), OpusDecoder(rate_hz)
    count = rate_hz * ptime_ms // 1000
    sound = voice(count * 5 / rate_hz, rate_hz=rate_hz)
    for start in range(0, len(sound), count):
        payload = encoder.encode(sound[start : start + count])
        assert 0 < len(payload) < 400
        assert len(decoder.decode(payload)) == count
    assert len(decoder.conceal(60)) >= rate_hz * 60 // 1000


def test_opus_refuses_other_lengths_and_settings() -> None:
    with pytest.raises(ValueError, match="320 samples"):
        OpusEncoder(16_000).encode(np.zeros(160, np.int16))
    with pytest.raises(ValueError, match="30 ms"):
        OpusEncoder(16_000, ptime_ms=30)


def test_opus_sends_fec_when_losses_are_expected() -> None:
    """With the same bit rate the redundant copy takes its share, so the packets differ; both decode."""
    sound = voice(2, rate_hz=16_000)
    sizes = []
    for loss_percent in (0, 30):
        encoder, decoder = OpusEncoder(16_000, loss_percent=loss_percent), OpusDecoder(16_000)
        payloads = [encoder.encode(sound[start : start + 320]) for start in range(0, len(sound), 320)]
        assert sum(len(decoder.decode(payload)) for payload in payloads) == len(sound)
        sizes.append([len(payload) for payload in payloads])
    assert sizes[0] != sizes[1]


def test_opus_understands_dtx_and_stereo_packets() -> None:
    """A packet of nothing but its first byte is silence or concealment; the stereo bit gives mono all the same."""
    decoder = OpusDecoder(16_000)
    wideband_20_ms = 9 << 3
    assert len(decoder.decode(bytes((wideband_20_ms,)))) == 320
    assert len(decoder.decode(bytes((wideband_20_ms | 0b100,)))) == 320


def test_opus_refuses_giant_packets() -> None:
    with pytest.raises(BadPayload, match="9000 bytes"):
        OpusDecoder().decode(bytes(9000))
