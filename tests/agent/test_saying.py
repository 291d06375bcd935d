"""Clauses behind a gate, and the cut at a word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from sipserver.agent.saying import Saying, cut_at_word
from sipserver.audio.frame import Samples
from sipserver.audio.playout import Playout
from sipserver.events import Event, Spoken
from tests.fakes.engines import loud
from tests.fakes.stage import Telephone
from tests.fakes.virtual_time import virtual


async def sound(*milliseconds: int) -> AsyncIterator[Samples]:
    for duration in milliseconds:
        yield loud(duration)


@pytest.mark.parametrize(
    ("heard_ms", "heard"),
    [(0, ""), (300, ""), (540, "Hello"), (900, "Hello"), (1080, "Hello dear"), (1490, "Hello dear")],
)
def test_what_is_heard_ends_with_a_word(heard_ms: int, heard: str) -> None:
    assert cut_at_word("Hello dear you", heard_ms, 1500) == heard


def test_what_was_played_to_its_end_was_heard() -> None:
    assert cut_at_word("Hello dear you", 1500, 1500) == "Hello dear you"


def test_without_sound_nothing_was_heard() -> None:
    assert cut_at_word("Hello", 0, 0) == ""


@virtual
async def test_held_sound_is_queued_at_once_when_the_gate_opens() -> None:
    playout, events = Playout(), list[Event]()
    saying = Saying(playout, events.append, held=True)
    await saying.add("One,", sound(200, 200))
    assert playout.queued == 0
    assert not saying.begun
    saying.release()
    assert playout.pending_ms == 400
    assert saying.begun
    saying.cut()
    await saying.finished()
    assert events == [Spoken("One,", "", 0, 400, False)]


@virtual
async def test_what_was_never_released_was_never_said() -> None:
    events: list[Event] = []
    saying = Saying(Playout(), events.append, held=True)
    await saying.add("One,", sound(200))
    saying.cut()
    saying.cut()
    assert events == []
    await saying.add("Two.", sound(200))
    assert saying.summary() == Spoken("One,", "", 0, 0, False)


@virtual
async def test_a_clause_that_is_cut_before_its_sound_was_complete_is_not_taken_for_heard() -> None:
    playout, events = Playout(), list[Event]()
    phone = Telephone(playout)
    clock = asyncio.create_task(phone.run())
    saying = Saying(playout, events.append)

    async def slow() -> AsyncIterator[Samples]:
        yield loud(300)
        await asyncio.sleep(1000)

    adding = asyncio.create_task(saying.add("A clause of which only the beginning came.", slow()))
    await asyncio.sleep(1)
    saying.cut()
    adding.cancel()
    clock.cancel()
    await asyncio.wait((adding, clock))
    await saying.finished()
    (spoken,) = events
    assert isinstance(spoken, Spoken)
    assert spoken.heard == "A"


@virtual
async def test_asides_are_heard_and_no_part_of_it() -> None:
    playout, events = Playout(), list[Event]()
    phone = Telephone(playout)
    clock = asyncio.create_task(phone.run())
    saying = Saying(playout, events.append)
    await saying.add("One moment.", sound(100), aside=True)
    assert not saying.begun
    await saying.add("First.", sound(100), part=0)
    await saying.add("Second.", sound(100), part=1)
    assert await saying.finished()
    clock.cancel()
    await asyncio.wait((clock,))
    assert saying.heard() == "First. Second."
    assert (saying.heard(0), saying.heard(1)) == ("First.", "Second.")
    assert saying.heard_ms == 300
    assert len(events) == 3
