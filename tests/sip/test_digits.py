from __future__ import annotations

import pytest

from sipserver.sip.digits import PressFilter, of_info
from sipserver.sip.facts import Key
from sipserver.sip.message import SipText


def info(kind: str, body: str) -> SipText:
    return SipText.parse(f"INFO sip:a SIP/2.0\r\nContent-Type: {kind}\r\n\r\n{body}")


@pytest.mark.parametrize(
    ("kind", "body", "found"),
    [
        ("application/dtmf-relay", "Signal=5\r\nDuration=160\r\n", ("5", 160)),
        ("application/dtmf-relay", "signal= *\r\nduration= x\r\n", ("*", None)),
        ("Application/DTMF-Relay; x=y", "Signal=11", ("#", None)),
        ("application/dtmf-relay", "Signal=d\n", ("D", None)),
        ("application/dtmf-relay", "Signal=16\r\n", None),
        ("application/dtmf-relay", "", None),
        ("application/dtmf", " 7 \r\n", ("7", None)),
        ("application/dtmf", "10", ("*", None)),
        ("application/dtmf", "77", None),
        ("text/plain", "5", None),
    ],
)
def test_digits_in_info(kind: str, body: str, found: tuple[str, int | None] | None) -> None:
    assert of_info(info(kind, body)) == found


def rfc(digit: str, mark: int) -> Key:
    return Key(digit, "rfc4733", mark, None)


def by_info(digit: str) -> Key:
    return Key(digit, "info", 0, None)


def test_one_event_in_many_pieces_is_one_press() -> None:
    presses = PressFilter()
    pieces = [("1", 100), ("1", 100), ("2", 300), ("1", 100), ("1", 500), ("2", 300)]
    assert [presses.is_new(rfc(*piece), 0.0) for piece in pieces] == [True, False, True, False, True, False]


def test_infos_are_presses_each() -> None:
    presses = PressFilter()
    assert [presses.is_new(by_info("1"), at / 10) for at in range(3)] == [True, True, True]


def test_a_press_told_both_ways_counts_once() -> None:
    presses = PressFilter()
    found = []
    for press in range(3):
        found.append(presses.is_new(rfc("4", press), press * 1.0))
        found.append(presses.is_new(by_info("4"), press * 1.0 + 0.1))
    assert found == [True, False] * 3


def test_the_other_way_later_is_a_press_of_its_own() -> None:
    presses = PressFilter()
    assert presses.is_new(rfc("4", 1), 0.0)
    assert presses.is_new(by_info("4"), 2.0)
