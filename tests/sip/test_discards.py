"""What a jitter buffer throws away counts as late only where somebody listens."""

from __future__ import annotations

from sipserver.sip.stream import Discards


def test_what_nobody_takes_is_not_missed() -> None:
    discards = Discards()
    assert [discards.missed(total, heard=False) for total in (0, 100, 200)] == [0, 0, 0]


def test_what_somebody_waits_for_is_missed() -> None:
    discards = Discards()
    assert [discards.missed(total, heard=True) for total in (3, 3, 10)] == [0, 0, 7]


def test_a_second_in_which_somebody_begins_or_ends_to_listen_does_not_count() -> None:
    discards, found = Discards(), []
    for total, heard in ((50, False), (80, True), (82, True), (130, False), (180, False), (200, True), (201, True)):
        found.append(discards.missed(total, heard=heard))
    assert found == [0, 0, 2, 2, 2, 2, 3]
