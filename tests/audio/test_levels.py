"""Levels and the energy gate."""

from __future__ import annotations

import numpy as np
import pytest

from sipserver.audio.frame import FRAME_SAMPLES, Samples
from sipserver.audio.levels import FLOOR_DBFS, EnergyGate, peak_dbfs, rms_dbfs


def square(dbfs: float) -> Samples:
    amplitude = round(32768 * 10 ** (dbfs / 20))
    return np.tile(np.array([amplitude, -amplitude], np.int16), FRAME_SAMPLES // 2)


@pytest.mark.parametrize("dbfs", [-1.0, -20.0, -45.0, -60.0])
def test_a_square_wave_measures_its_level(dbfs: float) -> None:
    assert rms_dbfs(square(dbfs)) == pytest.approx(dbfs, abs=0.1)
    assert peak_dbfs(square(dbfs)) == pytest.approx(dbfs, abs=0.1)


def test_silence_nothing_and_full_scale() -> None:
    assert rms_dbfs(np.zeros(320, np.int16)) == peak_dbfs(np.zeros(320, np.int16)) == FLOOR_DBFS
    assert rms_dbfs(np.zeros(0, np.int16)) == peak_dbfs(np.zeros(0, np.int16)) == FLOOR_DBFS
    lowest = np.full(320, -32768, np.int16)
    assert rms_dbfs(lowest) == pytest.approx(0, abs=0.01)
    assert peak_dbfs(lowest) == 0


def test_the_gate_opens_holds_and_closes() -> None:
    gate = EnergyGate(-45, hysteresis_db=3, hang_ms=60)
    assert not gate.hear(square(-50))
    assert gate.hear(square(-40))
    assert gate.level_dbfs == pytest.approx(-40, abs=0.1)
    assert [gate.hear(square(-70)) for _ in range(4)] == [True, True, False, False]


def test_a_level_between_the_thresholds_keeps_the_gate_as_it_is() -> None:
    gate = EnergyGate(-45, hysteresis_db=3, hang_ms=40)
    assert not any(gate.hear(square(-46.5)) for _ in range(5))
    gate.hear(square(-44))
    assert all(gate.hear(square(-46.5)) for _ in range(5))


def test_without_hang_the_gate_follows_the_frame() -> None:
    gate = EnergyGate(-45, hang_ms=0)
    assert [gate.hear(square(level)) for level in (-30, -80, -30)] == [True, False, True]
    assert gate.is_open
