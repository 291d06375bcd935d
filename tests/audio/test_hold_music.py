"""The music on hold is soft, has no click, no pause and no seam, and lies in the band of a telephone."""

from __future__ import annotations

import numpy as np
import pytest

from sipserver.audio.frame import RATE_HZ
from sipserver.audio.hold_music import LEVEL_DBFS, gentle
from sipserver.audio.levels import peak_dbfs, rms_dbfs


def test_it_is_quiet_and_even() -> None:
    music = gentle()
    assert len(music) == 16 * RATE_HZ
    assert rms_dbfs(music) == pytest.approx(LEVEL_DBFS, abs=0.1)
    assert peak_dbfs(music) < -12
    parts = [rms_dbfs(music[start : start + RATE_HZ // 5]) for start in range(0, len(music), RATE_HZ // 5)]
    assert min(parts) > -42
    assert max(parts) < -22


def test_it_has_no_dc_and_stays_in_the_telephone_band() -> None:
    music = gentle()
    assert abs(float(music.mean())) < 0.5
    powers = np.abs(np.fft.rfft(music)) ** 2
    hz = np.fft.rfftfreq(len(music), 1 / RATE_HZ)
    assert powers[(hz > 200) & (hz < 3400)].sum() > 0.999 * powers.sum()


def test_the_seam_is_no_place_of_its_own() -> None:
    twice = np.concatenate((gentle(), gentle())).astype(int)
    steps, bends = np.abs(np.diff(twice)), np.abs(np.diff(twice, 2))
    seam = len(gentle())
    assert steps[seam - 3 : seam + 3].max() <= np.percentile(steps, 99)
    assert bends[seam - 3 : seam + 3].max() <= np.percentile(bends, 99)


def test_nothing_clicks() -> None:
    """A click is a bend far beyond what the highest partial needs."""
    bends = np.abs(np.diff(gentle().astype(int), 2))
    assert bends.max() < 3 * np.percentile(bends, 99.9)


def test_it_is_shared_and_cannot_be_changed() -> None:
    assert gentle() is gentle()
    with pytest.raises(ValueError, match="read-only"):
        gentle()[0] = 1
