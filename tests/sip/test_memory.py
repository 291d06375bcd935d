from __future__ import annotations

from sipserver.sip.memory import IDLE_S, Tidy, give_back


def test_memory_is_given_back_once_after_each_busy_time() -> None:
    given: list[float] = []
    tidy = Tidy(lambda: given.append(now_s))
    for now_s, calls in ((0.0, 0), (100.0, 0), (101.0, 3), (120.0, 1), (120.0 + IDLE_S - 1, 0)):
        tidy.look(now_s, calls)
    assert given == []
    for now_s in (120.0 + IDLE_S, 300.0, 400.0):
        tidy.look(now_s, 0)
    tidy.look(now_s := 500.0, 1)
    tidy.look(now_s := 600.0, 0)
    assert given == [120.0 + IDLE_S, 600.0]


def test_giving_back_does_no_harm() -> None:
    give_back()
