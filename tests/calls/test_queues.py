"""Who gets whom: the order of a queue alone, without calls."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sipserver.calls.queues import Agent, Line, Queues, Server, Waiter
from sipserver.dialplan.queues import QueueSpec
from sipserver.events import Event, QueueEntered, QueueLeft
from tests.fakes.leg import breathe
from tests.fakes.virtual_time import virtual


class Somebody:
    """A call, as far as a queue looks at it."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)


def line_of(queues: Queues, name: str = "sales", **spec: Any) -> Line:
    return queues.line("acme", name, QueueSpec(**spec))


@contextmanager
def serving(line: Line) -> Iterator[tuple[Server, list[str]]]:
    """An agent at a desk, and what they are told."""
    told: list[str] = []
    call: Any = Somebody()
    with line.serving(call, rests=lambda: told.append("rests"), serves=lambda: told.append("serves")) as server:
        yield server, told


def waiting(line: Line) -> Any:
    call: Any = Somebody()
    return line.waiting(call)


async def offered(waiter: Waiter) -> tuple[str, ...]:
    offer = await waiter.offer()
    assert not isinstance(offer, Server)
    return tuple(agent.to for agent in offer)


@virtual
async def test_an_agent_who_answered_leaves_the_one_at_the_desk_to_the_next() -> None:
    line = line_of(Queues(), agents=("201",))
    with waiting(line) as ann, waiting(line) as ben:
        assert await offered(ann) == ("201",)
        with serving(line) as (server, told):
            assert ann.server.done(), "whoever is at a desk is there at once, also while others ring"
            ann.connected()
            await asyncio.sleep(0.01)
            assert await ben.offer() is server
            assert told == ["rests", "serves", "rests", "serves"]
            server.release(0)
        line.free(Agent("201"))
        await asyncio.sleep(0.01)


@virtual
async def test_a_place_is_kept_until_somebody_talks() -> None:
    line = line_of(Queues(), agents=("201", "202"), strategy="in_order")
    with waiting(line) as ann, waiting(line) as ben, waiting(line) as cy:
        assert (await offered(ann), await offered(ben)) == (("201",), ("202",))
        assert [waiter.position for waiter in (ann, ben, cy)] == [1, 2, 3]
        ben.connected()
        assert [waiter.position for waiter in (ann, cy)] == [1, 2]
        asking = asyncio.create_task(cy.offer())
        await breathe()
        ann.rings = False
        line.free(Agent("201"))  # another object: of the queues' own agents nobody is free yet
        await breathe()
        assert not asking.done()
        asking.cancel()
        await asyncio.wait({asking})


@virtual
async def test_what_was_offered_and_not_taken_is_free_for_the_next() -> None:
    queues = Queues()
    line = line_of(queues, agents=("201",))
    with waiting(line) as ben_before:
        line.match()
        assert ben_before.agents.done()
        with waiting(line) as ann:
            line.match()
            assert not ann.agents.done()
    with waiting(line_of(queues, agents=("201",))) as ann:
        assert await offered(ann) == ("201",)


@virtual
async def test_one_agent_is_busy_in_all_queues_of_the_tenant() -> None:
    queues = Queues()
    sales, support = line_of(queues, agents=("201",)), line_of(queues, "support", agents=("201",))
    with waiting(sales) as ann, waiting(support) as ben:
        assert await offered(ann) == ("201",)
        support.match()
        assert not ben.agents.done()
        sales.free(queues.agent("acme", "201"), 5, talked=True)
        await asyncio.sleep(4.9)
        assert not ben.agents.done()
        await asyncio.sleep(0.2)
        assert (ann.rings, ben.agents.done()) == (True, True)


@virtual
async def test_entering_and_leaving_are_told_once_and_an_empty_queue_is_forgotten() -> None:
    queues = Queues()
    line = line_of(queues)
    with waiting(line) as ann:
        await asyncio.sleep(2)
        assert queues.waiting() == {"sales": 1}
        events: Any = ann.call
    assert [type(event) for event in events.events] == [QueueEntered, QueueLeft]
    assert events.events[1] == QueueLeft(queue="sales", reason="hangup", waited_ms=2000)
    assert queues.waiting() == {}
    assert line_of(queues) is not line
