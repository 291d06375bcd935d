"""What networks send: ringing, busy and congestion as each country's telephones sound them (ITU-T E.180, supplement 2).

Owns the table and one period of each signal. Played again and again it is a `loop.Loop`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from sipserver.audio.frame import Samples
from sipserver.audio.loop import Loop
from sipserver.audio.tones import silence, tone

_ONE_DBM0, _EACH_OF_TWO_DBM0 = -13.0, -16.0


class Progress(enum.StrEnum):
    RINGBACK = "ringback"
    BUSY = "busy"
    CONGESTION = "congestion"


@dataclass(frozen=True, slots=True)
class Signal:
    """frequencies_hz sound together. cadence_ms: on, off, on, off ..."""

    frequencies_hz: tuple[float, ...]
    cadence_ms: tuple[int, ...]


def _country(
    ringback: tuple[tuple[float, ...], tuple[int, ...]],
    busy: tuple[tuple[float, ...], tuple[int, ...]],
    congestion: tuple[tuple[float, ...], tuple[int, ...]],
) -> Mapping[Progress, Signal]:
    signals = zip(Progress, (ringback, busy, congestion), strict=True)
    return {progress: Signal(*signal) for progress, signal in signals}


_425 = (425.0,)

COUNTRIES: Mapping[str, Mapping[Progress, Signal]] = {
    "AT": _country(((420.0,), (1000, 5000)), ((420.0,), (400, 400)), ((420.0,), (200, 200))),
    "CH": _country((_425, (1000, 4000)), (_425, (500, 500)), (_425, (200, 200))),
    "DE": _country((_425, (1000, 4000)), (_425, (480, 480)), (_425, (240, 240))),
    "FR": _country(((440.0,), (1500, 3500)), ((440.0,), (500, 500)), ((440.0,), (250, 250))),
    "GB": _country(((400.0, 450.0), (400, 200, 400, 2000)), ((400.0,), (375, 375)), ((400.0,), (400, 350, 225, 525))),
    "IT": _country((_425, (1000, 4000)), (_425, (500, 500)), (_425, (200, 200))),
    "NL": _country((_425, (1000, 4000)), (_425, (500, 500)), (_425, (250, 250))),
    "US": _country(((440.0, 480.0), (2000, 4000)), ((480.0, 620.0), (500, 500)), ((480.0, 620.0), (250, 250))),
}
"""By ISO 3166 code."""


@cache
def period(progress: Progress, country: str = "DE") -> Samples:
    """One period, read-only. Raises ValueError for a country that is not in the table, naming those that are."""
    signals = COUNTRIES.get(country.upper())
    if signals is None:
        raise ValueError(f"no tones are known for {country!r}, only for {', '.join(sorted(COUNTRIES))}")
    signal = signals[progress]
    level_dbm0 = _ONE_DBM0 if len(signal.frequencies_hz) == 1 else _EACH_OF_TWO_DBM0
    levels = (level_dbm0,) * len(signal.frequencies_hz)
    parts = [
        silence(length_ms) if index % 2 else tone(signal.frequencies_hz, length_ms, levels)
        for index, length_ms in enumerate(signal.cadence_ms)
    ]
    whole = np.concatenate(parts)
    whole.setflags(write=False)
    return whole


def endless(progress: Progress, country: str = "DE") -> Loop:
    """The signal for as long as it is wanted; each call begins a new one. Raises ValueError as `period` does."""
    return Loop(period(progress, country))
