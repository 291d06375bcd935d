"""Doubling and halving of the rate: what passes, what is held back, and that chunks do not show."""

from __future__ import annotations

import numpy as np
import pytest

from sipserver.audio.octave import DELAY_MS, Doubler, Halver


def tone(hz: float, rate_hz: int, seconds: float = 1.0, level: float = 8000) -> np.ndarray:
    return np.rint(level * np.sin(2 * np.pi * hz * np.arange(int(rate_hz * seconds)) / rate_hz)).astype(np.int16)


def level_db(samples: np.ndarray, hz: float, rate_hz: int) -> float:
    """Of one frequency, against full scale; the first and last tenth left out."""
    cut = len(samples) // 10
    part = samples[cut:-cut].astype(float) * np.hanning(len(samples) - 2 * cut)
    at = np.exp(-2j * np.pi * hz * np.arange(len(part)) / rate_hz)
    return 20 * float(np.log10(4 * abs(np.dot(part, at)) / len(part) / 32_768 + 1e-12))


@pytest.mark.parametrize("hz", [300, 1000, 2000, 3400])
def test_the_telephone_band_passes(hz: float) -> None:
    eight, sixteen = tone(hz, 8000), tone(hz, 16_000)
    assert level_db(Doubler().convert(eight), hz, 16_000) == pytest.approx(level_db(eight, hz, 8000), abs=0.1)
    assert level_db(Halver().convert(sixteen), hz, 8000) == pytest.approx(level_db(sixteen, hz, 16_000), abs=0.1)


@pytest.mark.parametrize("hz", [1000, 3000, 3400])
def test_images_are_held_back(hz: float) -> None:
    doubled = Doubler().convert(tone(hz, 8000))
    assert level_db(doubled, 8000 - hz, 16_000) < level_db(doubled, hz, 16_000) - 65


@pytest.mark.parametrize("hz", [4600, 5500, 7000])
def test_what_does_not_fit_is_held_back(hz: float) -> None:
    heard = tone(hz, 16_000)
    assert level_db(Halver().convert(heard), 8000 - hz, 8000) < level_db(heard, hz, 16_000) - 65


@pytest.mark.parametrize("sizes", [(160,), (80, 240), (2, 4, 318, 160)])
def test_chunks_do_not_show(sizes: tuple[int, ...]) -> None:
    samples = np.random.default_rng(7).integers(-9000, 9000, 9600).astype(np.int16)
    for make in (Doubler, Halver):
        whole, parts, converter, at = make().convert(samples), [], make(), 0
        while at < len(samples):
            for size in sizes:
                parts.append(converter.convert(samples[at : at + size]))
                at += size
        assert np.array_equal(np.concatenate(parts)[: len(whole)], whole[: sum(map(len, parts))])


def test_a_click_comes_out_as_late_as_is_said() -> None:
    click = np.zeros(400, np.int16)
    click[100] = 20_000
    late = np.argmax(np.abs(Doubler().convert(click))) / 16 - 100 / 8
    assert late == pytest.approx(DELAY_MS, abs=0.1)


def test_full_scale_does_not_wrap_and_odd_numbers_are_refused() -> None:
    square = np.where(np.arange(320) % 40 < 20, 32_767, -32_768).astype(np.int16)
    doubled = Doubler().convert(square)
    assert doubled.max() == 32_767
    assert doubled.min() == -32_768
    with pytest.raises(ValueError, match="pairs"):
        Halver().convert(square[:3])
