"""Sound files: what FFmpeg reads is played, everything else is refused with the file's name."""

from __future__ import annotations

import wave
from pathlib import Path

import av
import numpy as np
import pytest

from sipserver.audio import sound_file
from sipserver.audio.frame import RATE_HZ, Samples
from sipserver.errors import ConfigError


def sine(rate_hz: int, duration_s: float = 0.5) -> Samples:
    return np.round(8000 * np.sin(2 * np.pi * 500 * np.arange(int(rate_hz * duration_s)) / rate_hz)).astype(np.int16)


def encode(path: Path, codec: str, rate_hz: int, *, layout: str = "mono") -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate_hz, layout=layout)
        assert isinstance(stream, av.AudioStream)
        channels = 2 if layout == "stereo" else 1
        frame = av.AudioFrame.from_ndarray(
            np.repeat(sine(rate_hz), channels)[np.newaxis, :], format="s16", layout=layout
        )
        frame.sample_rate = rate_hz
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def loudness(samples: Samples) -> float:
    return float(np.std(samples[len(samples) // 4 : -len(samples) // 4]))


@pytest.mark.parametrize(
    ("name", "codec", "rate_hz"),
    [
        ("a.wav", "pcm_s16le", 8_000),
        ("b.wav", "pcm_mulaw", 8_000),
        ("c.wav", "pcm_s24le", 44_100),
        ("d.flac", "flac", 48_000),
        ("e.mp3", "libmp3lame", 24_000),
        ("f.ogg", "libopus", 48_000),
        ("g.au", "pcm_s16be", 16_000),
        ("h.m4a", "aac", 32_000),
    ],
)
@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_reads_what_people_have(tmp_path: Path, name: str, codec: str, rate_hz: int, layout: str) -> None:
    encode(tmp_path / name, codec, rate_hz, layout=layout)
    samples = sound_file.read(tmp_path / name)
    assert samples.dtype == np.int16
    assert len(samples) == pytest.approx(RATE_HZ // 2, abs=RATE_HZ * 0.06)
    assert loudness(samples) == pytest.approx(8000 / 2**0.5, rel=0.1)


def test_a_wav_of_our_rate_comes_back_exactly(tmp_path: Path) -> None:
    sound_file.write_wav(tmp_path / "a.wav", sine(RATE_HZ))
    assert np.array_equal(sound_file.read(tmp_path / "a.wav"), sine(RATE_HZ))


def test_a_stereo_wav_has_left_first_and_pads_the_shorter_side(tmp_path: Path) -> None:
    left, right = np.arange(100, dtype=np.int16), np.arange(50, dtype=np.int16) + 1000
    sound_file.write_wav(tmp_path / "a.wav", left, right)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (2, RATE_HZ, 2)
        both = np.frombuffer(file.readframes(1000), "<i2").reshape(-1, 2)
    assert np.array_equal(both[:, 0], left)
    assert np.array_equal(both[:50, 1], right)
    assert not both[50:, 1].any()
    assert [each.name for each in tmp_path.iterdir()] == ["a.wav"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "taken"
    target.mkdir()
    with pytest.raises(OSError, match="taken"):
        sound_file.write_wav(target, sine(RATE_HZ))
    assert [each.name for each in tmp_path.iterdir()] == ["taken"]
    with pytest.raises(ValueError, match="channel"):
        sound_file.write_wav(tmp_path / "none.wav")


def test_too_long_is_refused_before_all_of_it_is_read(tmp_path: Path) -> None:
    sound_file.write_wav(tmp_path / "a.wav", sine(RATE_HZ, 3))
    assert len(sound_file.read(tmp_path / "a.wav", longest_s=3)) == 3 * RATE_HZ
    with pytest.raises(ConfigError, match=r"a\.wav: longer than 2\.9 s"):
        sound_file.read(tmp_path / "a.wav", longest_s=2.9)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a sound file"),
        (b"hello", "not a sound file"),
        (b"RIFF\xff\xff\xff\xffWAVEjunk", "not a sound file"),
        (bytes(range(256)) * 50, "not a sound file"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n", "not a sound file"),
        (b"ffconcat version 1.0\nfile sound.wav\n", "not a sound file"),
    ],
)
def test_what_is_no_sound_is_refused_by_name(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "prompt.wav").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"prompt\.wav: {reason}"):
        sound_file.read(tmp_path / "prompt.wav")


def test_missing_files_folders_and_empty_sounds_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.wav: No such file"):
        sound_file.read(tmp_path / "gone.wav")
    with pytest.raises(ConfigError, match="directory"):
        sound_file.read(tmp_path)
    sound_file.write_wav(tmp_path / "empty.wav", np.zeros(0, np.int16))
    with pytest.raises(ConfigError, match=r"empty\.wav: "):
        sound_file.read(tmp_path / "empty.wav")


def test_a_picture_has_no_sound(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    with pytest.raises(ConfigError, match=r"film\.mp4: there is no sound"):
        sound_file.read(tmp_path / "film.mp4")


def test_tags_in_an_old_character_set_do_no_harm(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        container.metadata["title"] = "Kuenstler"
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(sine(16_000)[np.newaxis, :], format="s16", layout="mono")
        frame.sample_rate = 16_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    content = (tmp_path / "a.wav").read_bytes()
    assert b"Kuenstler" in content
    (tmp_path / "a.wav").write_bytes(content.replace(b"Kuenstler", b"K\xfcnstler "))
    assert np.array_equal(sound_file.read(tmp_path / "a.wav"), sine(16_000))


def test_damaged_files_are_sound_or_refused(tmp_path: Path) -> None:
    seeds = []
    for name, codec, rate_hz in (
        ("a.wav", "pcm_s16le", 16_000),
        ("b.mp3", "libmp3lame", 24_000),
        ("c.m4a", "aac", 32_000),
    ):
        encode(tmp_path / name, codec, rate_hz)
        seeds.append((tmp_path / name).read_bytes())
    refused: list[str] = []
    random = np.random.default_rng(4)
    for round_number in range(150):
        content = bytearray(seeds[round_number % len(seeds)])
        reach = min(len(content), int(random.choice([48, 512, len(content)])))
        for position in random.integers(0, reach, int(random.choice([1, 5, 20]))):
            content[position] = random.integers(256)
        (tmp_path / "damaged").write_bytes(content[: random.integers(1, len(content))] if round_number % 3 else content)
        try:
            samples = sound_file.read(tmp_path / "damaged", longest_s=20)
        except ConfigError as problem:
            refused.append(str(problem))
        else:
            assert samples.dtype == np.int16
    assert 10 < len(refused) < 150
    assert all("damaged: " in reason for reason in refused)


def test_rates_beyond_reason_are_refused(tmp_path: Path) -> None:
    sound_file.write_wav(tmp_path / "a.wav", sine(RATE_HZ), rate_hz=1000)
    with pytest.raises(ConfigError, match="1000 Hz"):
        sound_file.read(tmp_path / "a.wav")
