from __future__ import annotations

from sipserver.sip.challenges import ChallengeCount


def test_challenges_in_a_row_are_counted_by_call_method_and_realm() -> None:
    count = ChallengeCount()
    assert count.challenged("a", "REGISTER", "proxy", "1") == 1
    assert count.challenged("a", "REGISTER", "registrar", "2") == 1  # a proxy on the way has its own
    assert count.challenged("a", "REGISTER", "registrar", "3") == 2
    assert count.challenged("b", "REGISTER", "registrar", "1") == 1


def test_a_response_that_comes_twice_counts_once() -> None:
    count = ChallengeCount()
    assert [count.challenged("a", "INVITE", "acme", "1") for _ in range(3)] == [1, 1, 1]


def test_an_answer_begins_anew() -> None:
    count = ChallengeCount()
    count.challenged("a", "REGISTER", "acme", "1")
    count.answered("a", "INVITE")
    assert count.challenged("a", "REGISTER", "acme", "2") == 2
    count.answered("a", "REGISTER")
    assert count.challenged("a", "REGISTER", "acme", "3") == 1


def test_memory_is_bounded() -> None:
    count = ChallengeCount()
    for number in range(1001):
        count.challenged(str(number), "INVITE", "acme", "1")
    assert count.challenged("0", "INVITE", "acme", "2") == 1
    assert count.challenged("1000", "INVITE", "acme", "2") == 2
