"""Tables of receiver reports, and what a browser is sent after each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from sipserver.audio.frame import Samples
from sipserver.codecs.opus import OpusDecoder, OpusEncoder
from sipserver.webrtc.bit_rate import BitRate, Sending
from tests.fakes.voice import voice

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


def test_much_loss_lowers_the_rate_step_by_step_as_far_as_fec_is_written() -> None:
    sent = after([(25, 20)] * 10)
    rates = [sending.bit_rate for sending in sent]
    assert rates[0] == 30_000
    assert rates == sorted(rates, reverse=True)
    assert LOWEST < rates[-1] < 20_000
    assert sent[-1].fec


@pytest.mark.parametrize("loss", [3, 7, 12, 25])
@pytest.mark.parametrize("round_trip_ms", [20, 400])
def test_what_is_sent_under_loss_can_be_mended(loss: float, round_trip_ms: float) -> None:
    """By the copy in the next packet, better than by what is made up without one."""
    sending = after([(0, 20), *[(loss, round_trip_ms)] * 12])[-1]
    encoder = OpusEncoder(bit_rate=sending.bit_rate, loss_percent=sending.loss_percent)
    sound = voice(3.0, seed=3)
    packets = [encoder.encode(sound[at : at + 320]) for at in range(0, len(sound) - 320, 320)]
    whole = OpusDecoder()
    heard = [whole.decode(packet) for packet in packets]
    assert error(heard, packets, fec=True) < 0.5 * error(heard, packets, fec=False)


def error(heard: Sequence[Samples], packets: Sequence[bytes], *, fec: bool) -> float:
    """Mean square, over the frames that were lost: every fourth."""
    decoder, errors = OpusDecoder(), []
    for at, packet in enumerate(packets[:-1]):
        if at % 4 != 2:
            decoder.decode(packet)
            continue
        made = decoder.decode_fec(packets[at + 1]) if fec else decoder.conceal()
        errors.append(np.mean((heard[at].astype(float) - made) ** 2))
    return float(np.mean(errors))


def test_where_fec_is_never_written_none_is_asked_for() -> None:
    rate = BitRate(6_000, 16_000)
    for _ in range(10):
        rate.report(10, 20)
    assert not rate.sending.fec


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
    assert rate.sending.bit_rate < 20_000
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
