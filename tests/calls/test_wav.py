"""Headers, and the repair of files whose writer died."""

from __future__ import annotations

import os
import wave
from pathlib import Path

import pytest

from sipserver.calls import wav
from sipserver.open_files import SELECT_FILES


def test_a_torn_sample_is_cut_off_and_the_rest_readable(tmp_path: Path) -> None:
    path = tmp_path / "torn.wav"
    path.write_bytes(wav.header(2, 0) + bytes(range(200)) * 5 + b"xyz")
    assert wav.repair(path) == 250
    with wave.open(str(path)) as file:
        assert file.getparams()[:4] == (2, 2, 16_000, 250)
        assert file.readframes(250) == bytes(range(200)) * 5


def test_repair_leaves_a_good_file_as_it_is(tmp_path: Path) -> None:
    writer = wav.WavWriter(tmp_path / "good.wav", 1)
    writer.write(b"abcd")
    writer.close()
    before = (tmp_path / "good.wav").read_bytes()
    assert wav.repair(tmp_path / "good.wav") == 2
    assert (tmp_path / "good.wav").read_bytes() == before


@pytest.mark.parametrize(("keep", "left"), [(2, 2), (0, 0), (9, 3)])
def test_the_end_of_a_file_can_be_cut_off_and_more_written(tmp_path: Path, keep: int, left: int) -> None:
    writer = wav.WavWriter(tmp_path / "cut.wav", 2)
    writer.write(b"aabbccddeeff")
    writer.truncate(keep)
    writer.write(b"xxyy")
    writer.close()
    with wave.open(str(tmp_path / "cut.wav")) as file:
        assert file.readframes(100) == b"aabbccddeeff"[: 4 * left] + b"xxyy"


@pytest.mark.parametrize("content", [b"", b"RIFF", b"x" * 100, wav.header(7, 0)])
def test_repair_refuses_what_is_no_recording(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(OSError, match="other"):
        wav.repair(path)
    assert path.read_bytes() == content


def test_a_size_beyond_the_format_stays_at_the_largest() -> None:
    assert wav.header(2, 2**33)[40:44] == (0xFFFF_FFFF - 44).to_bytes(4, "little")


def test_its_file_leaves_the_low_descriptors_to_calls(tmp_path: Path) -> None:
    writer = wav.WavWriter(tmp_path / "high.wav", 1)
    held = [name for name in os.listdir("/proc/self/fd") if _file_of(name) == str(tmp_path / "high.wav")]
    writer.close()
    assert [int(name) >= SELECT_FILES for name in held] == [True]


def _file_of(name: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except FileNotFoundError:  # the descriptor of the listing itself
        return ""
