"""The gate: how many come in, how many wait, who yields."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from sipserver.errors import ProviderBusy, ProviderTimeout
from sipserver.speech.gate import Gate


class Visitor:
    """A task that goes through the gate and stays inside until it is let out."""

    def __init__(self, gate: Gate, entered: list[str], name: str, *, speculative: bool = False) -> None:
        self._gate, self._entered, self._name, self._speculative = gate, entered, name, speculative
        self._leave = asyncio.Event()
        self.task = asyncio.create_task(self._visit())

    async def _visit(self) -> int:
        async with self._gate.passage(speculative=self._speculative) as queued_ms:
            self._entered.append(self._name)
            await self._leave.wait()
        return queued_ms

    async def leave(self) -> None:
        self._leave.set()
        await self.task


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_urgent_visitors_go_before_speculative_ones() -> None:
    gate, entered = Gate("engine", at_once=1, bound=9, timeout_s=10), list[str]()
    first = Visitor(gate, entered, "first")
    await turns()
    guess = Visitor(gate, entered, "guess", speculative=True)
    await turns()
    sure = Visitor(gate, entered, "sure")
    await turns()
    assert gate.depth == 2
    for visitor in (first, sure, guess):
        await visitor.leave()
    assert entered == ["first", "sure", "guess"]


async def test_a_full_gate_refuses_and_prefers_the_urgent() -> None:
    gate, entered = Gate("engine", at_once=1, bound=1, timeout_s=10), list[str]()
    inside = Visitor(gate, entered, "inside")
    await turns()
    guess = Visitor(gate, entered, "guess", speculative=True)
    await turns()
    sure = Visitor(gate, entered, "sure")
    await turns()
    with pytest.raises(ProviderBusy, match="made room"):
        await guess.task
    with pytest.raises(ProviderBusy, match="wait already"):
        await Visitor(gate, entered, "late").task
    assert gate.refused == 2
    await inside.leave()
    await sure.leave()
    assert entered == ["inside", "sure"]


async def test_nobody_waits_for_ever() -> None:
    gate, entered = Gate("engine", at_once=1, bound=1, timeout_s=0.01), list[str]()
    inside = Visitor(gate, entered, "inside")
    await turns()
    with pytest.raises(ProviderTimeout):
        await Visitor(gate, entered, "waiting").task
    assert gate.depth == 0
    await inside.leave()
    after = Visitor(gate, entered, "after")
    await after.leave()


async def test_a_visitor_cancelled_at_its_turn_hands_the_place_on() -> None:
    gate, entered = Gate("engine", at_once=1, bound=9, timeout_s=10), list[str]()
    async with AsyncExitStack() as inside:
        await inside.enter_async_context(gate.passage())
        gone, next_one = Visitor(gate, entered, "gone"), Visitor(gate, entered, "next")
        await turns()
        await inside.aclose()  # the place is given to the first in line, which has not noticed yet
        gone.task.cancel()
    await next_one.leave()
    assert gone.task.cancelled()
    assert entered == ["next"]
    async with gate.passage():
        assert gate.depth == 0
