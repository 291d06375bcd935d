"""Totals of legs as growth since the last report."""

from __future__ import annotations

from sipserver.api.rtp_totals import FATES, MAX_CALLS, RtpTotals
from sipserver.events import RtpStats


def report(received: int, mos: float | None = None) -> RtpStats:
    return RtpStats(received, 0, 0, 0, 0, 0.0, 0, 0, 0.0, None, mos)


def test_growth_never_negative() -> None:
    totals = RtpTotals()
    assert totals.grown("a", report(100))["received"] == 100
    assert totals.grown("a", report(150))["received"] == 50
    assert totals.grown("a", report(10))["received"] == 0
    assert totals.grown("a", report(25))["received"] == 15
    assert set(totals.grown("a", report(25))) == set(FATES)


def test_memory_is_bounded_and_keeps_the_calls_that_report() -> None:
    totals = RtpTotals()
    totals.grown("running", report(1, mos=4.0))
    for number in range(MAX_CALLS + 10):
        totals.grown(str(number), report(1))
        totals.grown("running", report(1, mos=4.0))
    assert totals.last_mos("running") == 4.0
    assert totals.last_mos("0") is None
    assert totals.last_mos(str(MAX_CALLS + 9)) is None
    assert totals.grown("0", report(1))["received"] == 1
