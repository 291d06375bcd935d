"""The table of codecs: what SDP says, and that each entry can be made."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sipserver.codecs import table
from sipserver.codecs.contract import Decoder, Encoder


@pytest.mark.parametrize(
    ("codec", "rtpmap", "payload_type", "audio_hz"),
    [
        (table.PCMU, "PCMU/8000", 0, 8_000),
        (table.PCMA, "PCMA/8000", 8, 8_000),
        (table.G722, "G722/8000", 9, 16_000),
        (table.L16_8K, "L16/8000", None, 8_000),
        (table.L16_16K, "L16/16000", None, 16_000),
        (table.L16_24K, "L16/24000", None, 24_000),
        (table.OPUS, "opus/48000/2", None, 16_000),
    ],
)
def test_names_types_and_rates_are_those_of_the_rfcs(
    codec: table.Codec, rtpmap: str, payload_type: int | None, audio_hz: int
) -> None:
    assert (codec.rtpmap, codec.payload_type, codec.audio_hz) == (rtpmap, payload_type, audio_hz)
    assert codec in table.CODECS


def test_the_rtp_clock_is_not_always_the_audio_rate() -> None:
    assert table.PCMU.clock_ticks(160) == 160
    assert table.G722.clock_ticks(320) == 160
    assert table.OPUS.clock_ticks(320) == 960


def test_find_takes_names_in_any_case_and_clocks_where_they_matter() -> None:
    assert table.find("pcmu") is table.PCMU
    assert table.find("OPUS", 48_000) is table.OPUS
    assert table.find("L16", 24_000) is table.L16_24K
    assert table.find("G722", 16_000) is None
    assert table.find("speex") is None


def test_static_payload_types() -> None:
    assert [table.by_payload_type(number) for number in (0, 8, 9)] == [table.PCMU, table.PCMA, table.G722]
    assert table.by_payload_type(96) is None


@pytest.mark.parametrize("codec", table.CODECS, ids=lambda codec: codec.rtpmap)
def test_every_codec_can_be_made(codec: table.Codec) -> None:
    encoder: Encoder = table.encoder(codec)
    decoder: Decoder = table.decoder(codec)
    assert encoder.rate_hz == decoder.rate_hz == codec.audio_hz


def test_only_opus_has_a_choice_of_rates() -> None:
    assert table.encoder(table.OPUS.at(24_000)).rate_hz == 24_000
    assert table.PCMU.at(8_000) == table.PCMU
    with pytest.raises(ValueError, match="8000 Hz"):
        table.PCMU.at(16_000)
    with pytest.raises(ValueError, match="11025"):
        table.encoder(table.OPUS.at(11_025))
    with pytest.raises(ValueError, match="11025"):
        table.decoder(table.OPUS.at(11_025))


def test_only_opus_loads_libopus_and_nothing_loads_pyav() -> None:
    program = """
import sys
from sipserver.codecs import table as t
t.encoder(t.G722)
assert "sipserver.codecs.libopus" not in sys.modules
t.encoder(t.OPUS), t.decoder(t.OPUS)
assert "av" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
