"""A burst of calls or connections must not end the process: PJSIP's own limit is an assertion."""

from __future__ import annotations

import pytest

from sipserver.sip.handles import Pace


class ByHand:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_as_many_as_allowed_then_none() -> None:
    pace = Pace(3, 1.0, ByHand())
    assert [pace.take() for _ in range(5)] == [True, True, True, False, False]


def test_room_comes_back_as_the_window_slides() -> None:
    clock = ByHand()
    pace = Pace(2, 1.0, clock)
    assert pace.take()
    clock.now_s += 0.6
    assert pace.take()
    clock.now_s += 0.3
    assert not pace.take()
    clock.now_s += 0.2
    assert pace.take()
    assert not pace.take()


@pytest.mark.parametrize("refusals", [1, 50])
def test_what_was_refused_does_not_count(refusals: int) -> None:
    clock = ByHand()
    pace = Pace(1, 1.0, clock)
    assert pace.take()
    assert not any(pace.take() for _ in range(refusals))
    clock.now_s += 1.0
    assert pace.take()
