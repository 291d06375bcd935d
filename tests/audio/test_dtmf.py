"""In-band digits: every key once with its duration, within Q.24; nothing out of speech, noise and music."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from sipserver.audio import sound_file, tones
from sipserver.audio.dtmf import DtmfDetector, Press
from sipserver.audio.frame import FRAME_SAMPLES, Frame, Samples
from sipserver.codecs import table
from tests.fakes.voice import voice
from tests.fakes.wire import through

KEYS = "123A456B789C*0#D"


def detected(sound: Samples, *, offset: int = 0) -> list[Press]:
    """What the detector tells about the sound, which begins `offset` samples into a frame and ends in silence."""
    padded = np.concatenate((np.zeros(offset, np.int16), sound, np.zeros(FRAME_SAMPLES * 6, np.int16)))
    detector, presses = DtmfDetector(), []
    for start in range(0, len(padded) - FRAME_SAMPLES + 1, FRAME_SAMPLES):
        presses += detector.hear(Frame(padded[start : start + FRAME_SAMPLES], start))
    assert detector.flush(0) == []
    return presses


def keys(presses: list[Press]) -> str:
    return "".join(press.digit for press in presses)


def noisy(sound: Samples, snr_db: float, seed: int = 3) -> Samples:
    """White noise that many dB below the digits themselves."""
    power = float(np.mean(tones.digit("5", 200).astype(float) ** 2)) / 10 ** (snr_db / 10)
    noise = np.random.default_rng(seed).normal(scale=power**0.5, size=len(sound))
    return np.clip(np.round(sound + noise), -32768, 32767).astype(np.int16)


def pair(key: str, duration_ms: int, *, low: float = 1.0, high: float = 1.0) -> Samples:
    """A digit whose frequencies are off by these factors."""
    low_hz, high_hz = tones.PAIRS[key]
    return tones.tone((low_hz * low, high_hz * high), duration_ms, (-9, -7))


@pytest.mark.parametrize("offset", range(0, FRAME_SAMPLES, 53))
def test_every_key_is_told_once_however_short_and_wherever_it_starts(offset: int) -> None:
    presses = detected(tones.digits(KEYS, duration_ms=40, gap_ms=40), offset=offset)
    assert keys(presses) == KEYS
    assert all(abs(press.duration_ms - 40) <= 10 for press in presses)


@pytest.mark.parametrize("duration_ms", [40, 65, 100, 160, 500, 3000])
def test_the_duration_is_measured(duration_ms: int) -> None:
    (press,) = detected(tones.digit("7", duration_ms), offset=111)
    assert (press.digit, press.duration_ms) == ("7", pytest.approx(duration_ms, abs=10, rel=0.01))


@pytest.mark.parametrize("offset", range(0, FRAME_SAMPLES, 53))
@pytest.mark.parametrize("duration_ms", [10, 20, 24])
def test_blips_are_no_presses(duration_ms: int, offset: int) -> None:
    assert detected(tones.digits(KEYS, duration_ms, 60), offset=offset) == []


@pytest.mark.parametrize("offset", range(0, FRAME_SAMPLES, 20))
def test_equal_keys_need_a_pause_of_40_ms(offset: int) -> None:
    assert keys(detected(noisy(tones.digits("555", 50, 40), 20), offset=offset)) == "555"


@pytest.mark.parametrize("late", range(0, 33, 4))
def test_a_lost_packet_does_not_double_a_key(late: int) -> None:
    """Frames and packets begin together but for the delay of a filter."""
    sound = tones.digit("8", 200)
    sound[960 + late : 1280 + late] = 0
    assert keys(detected(sound)) == "8"


@pytest.mark.parametrize("offset", range(0, FRAME_SAMPLES, 53))
def test_a_tone_may_fall_out_for_10_ms(offset: int) -> None:
    sound = tones.digit("8", 200)
    sound[1600:1760] = 0
    (press,) = detected(sound, offset=offset)
    assert press.duration_ms == pytest.approx(195, abs=15)


def test_keys_without_a_gap_are_two_keys() -> None:
    assert keys(detected(np.concatenate((tones.digit("1", 80), tones.digit("9", 80))))) == "19"


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("detune", [0.985, 1.015])
def test_frequencies_within_1_5_percent_are_accepted(key: str, detune: float) -> None:
    assert keys(detected(noisy(pair(key, 45, low=detune, high=detune), 15), offset=77)) == key


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(("low", "high"), [(0.965, 1), (1.035, 1), (1, 0.965), (1, 1.035)])
def test_frequencies_3_5_percent_off_are_refused(key: str, low: float, high: float) -> None:
    assert detected(pair(key, 200, low=low, high=high)) == []


@pytest.mark.parametrize(("low_dbm0", "high_dbm0"), [(-9, -5), (-13, -9), (-3, -11), (-25, -25), (-3, -3), (-29, -25)])
def test_levels_and_twists_of_q24_are_accepted(low_dbm0: float, high_dbm0: float) -> None:
    sound = np.concatenate([tones.digit(key, 50, low_dbm0=low_dbm0, high_dbm0=high_dbm0) for key in "1"])
    assert keys(detected(sound)) == "1"


@pytest.mark.parametrize(("low_dbm0", "high_dbm0"), [(-15, -5), (-5, -20), (-50, -50), (-9, -90), (-90, -9)])
def test_one_tone_alone_wild_twist_and_crosstalk_are_refused(low_dbm0: float, high_dbm0: float) -> None:
    assert detected(tones.digit("6", 200, low_dbm0=low_dbm0, high_dbm0=high_dbm0)) == []


@pytest.mark.parametrize("seed", range(5))
def test_digits_are_heard_at_15_db_of_signal_to_noise(seed: int) -> None:
    assert keys(detected(noisy(tones.digits(KEYS, 50, 50), 15, seed))) == KEYS


@pytest.mark.parametrize("codec", [table.PCMU, table.PCMA, table.G722], ids=lambda codec: codec.encoding)
@pytest.mark.parametrize("offset", [0, 100, 200])
def test_digits_survive_the_codecs(codec: table.Codec, offset: int) -> None:
    assert keys(detected(through(codec, noisy(tones.digits(KEYS, 45, 45), 20)), offset=offset)) == KEYS


def test_digits_are_heard_after_speech_and_between_words() -> None:
    talk = voice(1)
    sound = np.concatenate((talk, tones.silence(60), tones.digit("3", 100), tones.silence(60), talk))
    assert keys(detected(sound)) == "3"


def test_a_second_harmonic_betrays_an_instrument() -> None:
    low_hz, high_hz = tones.PAIRS["*"]
    levels = (-9.0, -9.0, -17.0)
    assert detected(tones.tone((low_hz, high_hz, 2 * low_hz), 300, levels)) == []
    assert detected(tones.tone((low_hz, high_hz, 2 * high_hz), 300, levels)) == []
    assert keys(detected(tones.tone((low_hz, high_hz), 300, levels[:2]))) == "*"


def test_sweeps_whistles_and_other_tones_are_no_digits() -> None:
    at_s = np.arange(5 * 16_000) / 16_000
    sweep = (8000 * np.sin(2 * np.pi * (200 * at_s + 180 * at_s**2))).astype(np.int16)
    both = sweep // 2 + (4000 * np.sin(2 * np.pi * 1336 * at_s)).astype(np.int16)
    for sound in (
        sweep,
        both,
        tones.ringback(),
        tones.busy(4),
        tones.beep(2000),
        tones.tone((350, 440), 2000, (-10, -10)),
    ):
        assert detected(sound) == []


@pytest.mark.parametrize("level", [300, 3000, 12_000])
def test_noise_is_no_digit(level: int) -> None:
    noise = np.random.default_rng(5).normal(scale=level, size=30 * 16_000)
    assert detected(np.clip(noise, -32768, 32767).astype(np.int16)) == []


@pytest.mark.parametrize("pitch_hz", [90, 130, 210])
def test_generated_voices_do_not_talk_off(pitch_hz: float) -> None:
    assert detected(voice(40, seed=int(pitch_hz), pitch_hz=pitch_hz)) == []


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
@pytest.mark.parametrize("manner", ["en", "en+f3", "de", "en+m7"])
def test_synthesised_speech_does_not_talk_off(manner: str, tmp_path: Path) -> None:
    """The sound quality of `en+m7` at a high pitch came nearest of all to a keypad."""
    text = Path(__file__).parents[2].joinpath("LICENSE").read_text(encoding="utf-8").split()
    wav = tmp_path / "speech.wav"
    pitch = "99" if manner == "en+m7" else "50"
    subprocess.run(["espeak-ng", "-v", manner, "-p", pitch, "-s", "140", "-w", wav, " ".join(text[:300])], check=True)
    speech = sound_file.read(wav)
    assert len(speech) > 60 * 16_000
    assert detected(speech) == []
    assert detected(through(table.PCMU, speech)) == []


def test_flush_tells_the_key_that_is_still_down() -> None:
    detector, sound = DtmfDetector(), tones.digit("4", 200)
    for start in range(0, 1920, FRAME_SAMPLES):
        assert detector.hear(Frame(sound[start : start + FRAME_SAMPLES], start)) == []
    (press,) = detector.flush(99)
    assert (press.digit, press.at_ns) == ("4", 99)
    assert press.duration_ms == pytest.approx(120, abs=10)
    assert detector.flush(100) == []


def test_the_release_is_told_within_60_ms() -> None:
    (press,) = detected(tones.digit("4", 200))
    assert press.at_ns // FRAME_SAMPLES * 20 - 200 <= 60
