"""Pauses between attempts."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.webhooks import schedule
from sipserver.webhooks.schedule import pause_s, retry_after_s

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def test_a_message_is_tried_for_three_days() -> None:
    waited, attempts = 0.0, 1
    while (pause := pause_s(attempts, waited, 0.5)) is not None:
        waited, attempts = waited + pause, attempts + 1
    assert attempts == 11
    assert waited / 86_400 == pytest.approx(3, abs=0.05)


@given(failed=st.integers(1, len(schedule.PAUSES_S)), chance=st.floats(0, 1))
def test_pauses_grow_and_differ_by_lot(failed: int, chance: float) -> None:
    pause = pause_s(failed, 0, chance)
    assert pause is not None
    planned = schedule.PAUSES_S[failed - 1]
    assert 0.85 * planned <= pause <= 1.15 * planned + 1e-6
    assert list(schedule.PAUSES_S) == sorted(schedule.PAUSES_S)
    assert pause_s(failed, 0, 0) != pause_s(failed, 0, 1)


def test_an_old_message_is_tried_eagerly_and_then_given_up() -> None:
    waited = schedule.TOTAL_S + 1
    assert [pause_s(failed, waited, 0.5) for failed in range(1, 6)] == [5, 30, 120, 600, None]
    assert pause_s(5, schedule.TOTAL_S - 1, 0.5) == 3600


def test_retry_after_lengthens_a_pause_and_never_shortens_it() -> None:
    assert pause_s(1, 0, 0.5, asked_s=90) == 90
    assert pause_s(4, 0, 0.5, asked_s=1) == 600
    assert pause_s(1, 0, 0.5, asked_s=10**8) == schedule.RETRY_AFTER_MOST_S


@pytest.mark.parametrize(
    ("status", "value", "seconds"),
    [
        (429, "120", 120),
        (503, " 7 ", 7),
        (503, "Sat, 28 Nov 2026 12:01:00 GMT", 60),
        (503, "Sat, 28 Nov 2026 11:00:00 GMT", 0),
        (503, "Sat, 28 Nov 2026 12:01:00 -0000", 60),
        (500, "120", 0),
        (503, "soon", 0),
        (503, "-5", 0),
        (503, "\u0665", 0),
        (503, "9" * 400, 999_999_999),
        (503, "Sat, 99 Nov 2026 12:01:00 GMT", 0),
        (503, "", 0),
        (None, "5", 0),
    ],
)
def test_retry_after_is_read(status: int | None, value: str, seconds: float) -> None:
    assert retry_after_s(status, {"Retry-After": value}, NOW) == seconds
