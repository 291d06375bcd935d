"""Tables of receiver reports, and what a browser is sent after each."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from sipserver.webrtc.bit_rate import BitRate, Sending

LOWEST, HIGHEST = 12_000, 40_000
Report = tuple[float, float | None]


def after(reports: Sequence[Report]) -> list[Sending]:
    rate = BitRate(LOWEST, HIGHEST)
    sent = []
    for loss_percent, round_trip_ms in reports:
        rate.report(loss_percent, round_trip_ms)
        sent.append(rate.sending)
    return sent


def test_a_good_path_gets_the_highest_rate_and_no_news() -> None:
    rate = BitRate(LOWEST, HIGHEST)
    assert [rate.report(0, 20) for _ in range(50)] == [None] * 50
    assert rate.sending == Sending(HIGHEST)


def test_some_loss_is_mended_by_fec_at_the_same_rate() -> None:
    last = after([(3, 20)] * 10)[-1]
    assert last == Sending(HIGHEST, 5)
    assert last.fec


def test_much_loss_lowers_the_rate_step_by_step_to_the_lowest() -> None:
    rates = [sending.bit_rate for sending in after([(25, 20)] * 10)]
    assert rates[0] == 30_000
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == LOWEST


def test_a_round_trip_that_grows_lowers_the_rate_without_any_loss() -> None:
    sent = after([(0, 40)] * 3 + [(0, 400)] * 8)
    assert sent[2].bit_rate == HIGHEST
    assert sent[-1].bit_rate < HIGHEST / 2
    assert not sent[-1].fec


def test_a_long_way_is_no_full_way() -> None:
    assert after([(0, 350)] * 20)[-1] == Sending(HIGHEST)


def test_it_recovers_slowly_and_whole() -> None:
    rate = BitRate(LOWEST, HIGHEST)
    for _ in range(10):
        rate.report(30, 20)
    assert rate.sending.bit_rate == LOWEST
    assert rate.sending.dtx
    reports = 0
    while rate.sending != Sending(HIGHEST):
        rate.report(0, 20)
        reports += 1
        assert reports < 40
    assert reports > 10


def test_loss_at_a_threshold_does_not_make_it_flap() -> None:
    rate = BitRate(LOWEST, HIGHEST)
    news = [rate.report(loss, 20) for loss in (1.9, 2.1) * 30]
    assert sum(each is not None for each in news) <= 1


@pytest.mark.parametrize("bounds", [(40_000, 12_000), (5_000, 10_000)])
def test_bounds_that_opus_does_not_know_are_refused(bounds: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="bit rates"):
        BitRate(*bounds)
