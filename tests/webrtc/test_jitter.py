"""Packets in any order, and what is pulled of them."""

from __future__ import annotations

from sipserver.webrtc.jitter import LEAST_WAIT, MOST_PACKETS, JitterBuffer, Lost

STEP = 960
"""Clock ticks of a packet."""


def filled(*numbers: int) -> JitterBuffer:
    buffer = JitterBuffer()
    for number in numbers:
        buffer.put(number & 0xFFFF, number * STEP, b"%d" % number)
    return buffer


def pulled(buffer: JitterBuffer, count: int) -> list[bytes | Lost | None]:
    return [buffer.pull() for _ in range(count)]


def test_after_a_late_packet_two_are_gathered_before_sound_goes_on() -> None:
    buffer = filled(1)
    assert pulled(buffer, 2) == [b"1", None]
    buffer.put(2, 2 * STEP, b"2")
    assert buffer.pull() is None
    buffer.put(3, 3 * STEP, b"3")
    assert pulled(buffer, 2) == [b"2", b"3"]


def test_packets_out_of_order_come_in_order_also_over_the_end_of_the_numbers() -> None:
    buffer = filled(65_534, 65_536, 65_535, 65_537)
    assert pulled(buffer, 4) == [b"65534", b"65535", b"65536", b"65537"]
    assert (buffer.reordered, buffer.lost) == (1, 0)


def test_the_first_packets_may_be_out_of_order() -> None:
    assert pulled(filled(8, 7), 2) == [b"7", b"8"]


def test_a_lost_packet_names_the_one_after_it() -> None:
    buffer = filled(1, 3)
    assert pulled(buffer, 3) == [b"1", Lost(b"3"), b"3"]
    assert buffer.lost == 1


def test_one_that_is_too_late_and_one_that_comes_twice_are_counted() -> None:
    buffer = filled(1, 2, 3, 3)
    pulled(buffer, 2)
    buffer.put(1, STEP, b"1")
    assert (buffer.duplicated, buffer.late) == (1, 1)
    assert buffer.pull() == b"3"


def test_one_that_came_too_late_makes_it_wait_for_more() -> None:
    buffer = filled(1, 2)
    assert pulled(buffer, 3) == [b"1", b"2", None]
    buffer.put(3, 3 * STEP, b"3")
    assert buffer.wait == LEAST_WAIT + 1


def test_a_sender_that_pauses_does_not() -> None:
    buffer = filled(1, 2)
    pulled(buffer, 3)
    buffer.put(3, 50 * STEP, b"3")
    assert buffer.wait == LEAST_WAIT


def test_the_last_packet_before_a_pause_does_not_wait_for_its_end() -> None:
    buffer = filled(1)
    assert pulled(buffer, 3) == [b"1", None, None]
    buffer.put(2, 2 * STEP, b"2")
    assert pulled(buffer, 3) == [None, b"2", None], "it was late, so a second one is waited for, but not for ever"


def test_what_waits_needlessly_is_worked_off() -> None:
    buffer = filled(*range(6))
    for number in range(6, 506):
        assert buffer.pull() is not None
        buffer.put(number, number * STEP, b"%d" % number)
    assert buffer.waiting <= 3
    assert buffer.discarded >= 3
    assert buffer.lost == 0


def test_it_is_bounded() -> None:
    buffer = filled(*range(200))
    assert buffer.waiting == MOST_PACKETS
    assert buffer.discarded == 150


def test_another_stream_begins_anew() -> None:
    buffer = filled(1, 2, 3)
    pulled(buffer, 3)
    for number in (30_000, 30_001):
        buffer.put(number, number * STEP, b"%d" % number)
    assert pulled(buffer, 2) == [b"30000", b"30001"]
    assert buffer.lost == 0
