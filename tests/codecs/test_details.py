"""What only one codec has: the standard's values, byte order, concealment. Opus has test_opus.py."""

from __future__ import annotations

import numpy as np
import pytest

from sipserver.codecs import table
from sipserver.codecs.concealment import Fading
from sipserver.codecs.g722 import G722Encoder
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
