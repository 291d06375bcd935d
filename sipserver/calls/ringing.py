"""Agents are called for a caller, one or several at a time; the first who answers stays.

Owns the calls to the agents until the caller has talked with one of them, and how long each agent rests afterwards.
Refuses to choose agents and to connect.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sipserver.calls.call import Call
from sipserver.calls.outbound import Order, Outcome
from sipserver.calls.party import Party
from sipserver.calls.queues import RETRY_S, Agent, Line
from sipserver.errors import CallerError, CapacityError
from sipserver.events import Fault


class Ringing:
    """Loop thread. Made by `ringing`."""

    def __init__(self, call: Call, line: Line, *, trunk: str, ring_s: float) -> None:
        self._call, self._line = call, line
        self._trunk, self._ring_s = trunk, ring_s
        self._won: asyncio.Future[tuple[Agent, Party] | None] = asyncio.get_running_loop().create_future()
        self._tasks: dict[asyncio.Task[None], Agent] = {}
        self._over = asyncio.Event()

    @property
    def won(self) -> asyncio.Future[tuple[Agent, Party] | None]:
        """Who answered first; None when nobody did. Not to be cancelled."""
        return self._won

    def begin(self, agents: Sequence[Agent]) -> None:
        for agent in agents:
            task = asyncio.create_task(self._ring(agent), name=f"ring for {self._call.id}")
            self._tasks[task] = agent
            task.add_done_callback(self._done)

    def decide(self) -> None:
        """Somebody else has the caller: nobody who still rings is wanted."""
        if not self._won.done():
            self._won.set_result(None)
        winner = self._won.result()
        for task, agent in self._tasks.items():
            if winner is None or agent is not winner[0]:
                task.cancel()

    async def close(self) -> None:
        """Hang up whoever is there, the winner too."""
        self._over.set()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _ring(self, agent: Agent) -> None:
        rest_s, talked = RETRY_S, False
        try:
            order = Order(to=agent.to, trunk=self._trunk, from_user=self._call.leg.offer.from_user, ring_s=self._ring_s)
            async with Party(self._call, order) as party:
                try:
                    outcome = await party.answer()
                    if outcome is not Outcome.ANSWERED:
                        return
                    rest_s = 0.0
                    if self._won.done():
                        party.judge(Outcome.NO_ANSWER)
                        return
                    rest_s, talked = self._line.spec.wrapup_s, True
                    self._won.set_result((agent, party))
                    self.decide()
                    await self._over.wait()
                except asyncio.CancelledError:
                    if not talked:
                        rest_s = 0.0
                        if self._won.done():  # it was another one's call
                            party.judge(Outcome.NO_ANSWER)
                    raise
        except (CallerError, CapacityError) as problem:
            self._call.emit(Fault(where="queue", error=str(problem)))
        finally:
            self._line.free(agent, rest_s, talked=talked)

    def _done(self, task: asyncio.Task[None]) -> None:
        problem = None if task.cancelled() else task.exception()
        if problem is not None and not self._won.done():
            self._won.set_exception(problem)
        if all(each.done() for each in self._tasks) and not self._won.done():
            self._won.set_result(None)


@asynccontextmanager
async def ringing(
    call: Call, line: Line, agents: Sequence[Agent], *, trunk: str, ring_s: float
) -> AsyncIterator[Ringing]:
    """The agents are called for the length of an `async with` block; then all of them are hung up and free again, each
    after their rest. Safe to cancel anywhere.
    """
    rung = Ringing(call, line, trunk=trunk, ring_s=ring_s)
    try:
        rung.begin(agents)
        yield rung
    finally:
        await rung.close()
