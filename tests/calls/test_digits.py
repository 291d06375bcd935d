"""The digit buffer: typed ahead, in time, too late, too many."""

from __future__ import annotations

import asyncio

from sipserver.calls.digits import DigitBuffer
from tests.fakes.leg import breathe


def press(buffer: DigitBuffer, digits: str) -> None:
    for digit in digits:
        buffer.press(digit)


async def test_typed_ahead_digits_come_first() -> None:
    buffer = DigitBuffer()
    press(buffer, "12")
    collecting = asyncio.create_task(buffer.collect(3, 10))
    await breathe()
    assert not collecting.done()
    press(buffer, "34")
    assert await collecting == "123"
    assert await buffer.collect(1, 10) == "4"


async def test_nothing_in_time_is_empty() -> None:
    assert await DigitBuffer().collect(1, 0.01) == ""


async def test_what_came_in_time_is_kept_when_the_rest_does_not() -> None:
    buffer = DigitBuffer()
    press(buffer, "12")
    assert await buffer.collect(4, 10, between_s=0.01) == "12"
    assert not buffer


async def test_the_terminator_ends_it_and_is_no_digit() -> None:
    buffer = DigitBuffer()
    press(buffer, "12#3")
    assert await buffer.collect(4, 10, terminator="#") == "12"
    assert await buffer.collect(1, 10, terminator="#") == "3"
    press(buffer, "#")
    assert await buffer.collect(4, 10, terminator="#") == ""


async def test_without_a_terminator_every_key_is_a_digit() -> None:
    buffer = DigitBuffer()
    press(buffer, "*#")
    assert await buffer.collect(2, 10) == "*#"


async def test_a_full_buffer_drops_and_counts() -> None:
    buffer = DigitBuffer(bound=3)
    press(buffer, "12345")
    assert buffer.dropped == 2
    assert await buffer.collect(3, 10) == "123"


async def test_cancelling_gives_the_digits_back() -> None:
    buffer = DigitBuffer()
    press(buffer, "12")
    collecting = asyncio.create_task(buffer.collect(3, 10))
    await breathe()
    collecting.cancel()
    await asyncio.wait({collecting})
    assert await buffer.collect(2, 10) == "12"


async def test_pressed_waits_for_a_new_digit_and_leaves_it() -> None:
    buffer = DigitBuffer()
    press(buffer, "1")
    first, second = buffer.pressed(), buffer.pressed()
    assert not first.done()
    second.cancel()
    press(buffer, "2")
    assert first.done()
    assert second.cancelled()
    assert len(buffer) == 2


async def test_a_taker_gets_what_nobody_collects() -> None:
    buffer = DigitBuffer()
    taken: list[str] = []
    press(buffer, "1")
    with buffer.handed_to(taken.append):
        press(buffer, "2")
        collecting = asyncio.create_task(buffer.collect(2, 10))
        await breathe()
        press(buffer, "3")
        assert await collecting == "13"
        press(buffer, "4")
    press(buffer, "5")
    assert taken == ["2", "4"]
    assert await buffer.collect(1, 10) == "5"


async def test_clear_forgets() -> None:
    buffer = DigitBuffer()
    press(buffer, "12")
    buffer.clear()
    assert await buffer.collect(1, 0.01) == ""
