"""Against figures of ITU-T G.107 and its published approximation (Cole and Rosenbluth, 2001)."""

from __future__ import annotations

import pytest

from sipserver.sip.quality import opinion, rating


def test_the_default_line_rates_93_2() -> None:
    assert rating() == pytest.approx(93.2, abs=0.05)  # G.107 section 7.7


@pytest.mark.parametrize(("r", "mos"), [(93.2, 4.41), (90, 4.34), (80, 4.03), (70, 3.60), (60, 3.10), (50, 2.58)])
def test_rating_to_opinion(r: float, mos: float) -> None:
    assert opinion(r) == pytest.approx(mos, abs=0.011)  # G.107 annex B, table B.1


def test_opinion_has_its_ends() -> None:
    assert (opinion(-5), opinion(0), opinion(100), opinion(120)) == (1.0, 1.0, 4.5, 4.5)
    assert min(opinion(r / 10) for r in range(1, 1000)) >= 1.0


@pytest.mark.parametrize("one_way_ms", [25, 50, 100, 150, 200, 250, 300])
def test_delay_follows_the_published_approximation(one_way_ms: float) -> None:
    late = max(0.0, one_way_ms - 177.3)
    assert rating(one_way_ms) == pytest.approx(93.2 - 0.024 * one_way_ms - 0.11 * late, abs=0.6)


@pytest.mark.parametrize(("loss", "impairment"), [(1, 3.64), (2, 7.01), (5, 15.78), (10, 27.07)])
def test_loss_takes_what_g_113_says(loss: float, impairment: float) -> None:
    assert rating() - rating(loss_percent=loss) == pytest.approx(impairment, abs=0.01)  # 95 * Ppl / (Ppl + 25.1)


def test_codecs_differ() -> None:
    assert rating() - rating(codec="GSM") == pytest.approx(20)
    assert rating(codec="pcmu/8000") == rating(codec="G722") == rating(codec="unknown")


def test_rating_never_falls_below_nothing() -> None:
    assert rating(5000, 100, "GSM") == 0.0
