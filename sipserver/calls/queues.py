"""The queues of a process: who waits, who serves, and who gets whom next.

Owns the order of the callers and the agents' turns. A caller keeps their place until they talk with an agent, whatever
becomes of those who are tried for them. Refuses to call anybody and to connect: the steps do.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from sipserver.events import QueueEntered, QueueLeft

if TYPE_CHECKING:
    from sipserver.calls.call import Call

RETRY_S = 10.0
"""An agent who was busy, declined or did not answer is not tried again for so long."""


class Spec(Protocol):
    """What the dialplan says about a queue; `dialplan.queues.QueueSpec`."""

    @property
    def agents(self) -> tuple[str, ...]: ...
    @property
    def strategy(self) -> Literal["longest_idle", "in_order", "all"]: ...
    @property
    def max(self) -> int: ...
    @property
    def wrapup_s(self) -> float: ...


@dataclass(eq=False, slots=True)
class Agent:
    """Somebody whom the queues of a tenant call. to: a number, a user or a SIP URI. busy: being called, or talking.
    rests: not to be called for a while.
    """

    to: str
    busy: bool = False
    rests: bool = False
    idle_since_s: float = -math.inf
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)


class Server:
    """An agent who has dialled in, and waits for callers. Loop thread. Made by `Line.serving`.

    rests, serves: called when nobody is with the agent, and when somebody is about to be.
    """

    def __init__(self, line: Line, call: Call, *, rests: Callable[[], None], serves: Callable[[], None]) -> None:
        self.call = call
        self.gone = False
        self.left: Callable[[], None] = lambda: None
        """Called when the agent goes while somebody is with them."""
        self.idle_since_s = asyncio.get_running_loop().time()
        self.free = True
        self._line = line
        self._rests, self._serves = rests, serves
        self._timer: asyncio.TimerHandle | None = None

    @property
    def with_caller(self) -> bool:
        return not self.free and self._timer is None

    def take(self) -> None:
        """For a caller. `release` gives the agent back."""
        self.free = False
        self._serves()

    def release(self, pause_s: float) -> None:
        """The caller is gone, or was never there."""
        self.left = lambda: None
        if not self.gone:
            self._rests()
            self.idle_since_s = asyncio.get_running_loop().time()
            self._timer = asyncio.get_running_loop().call_later(pause_s, self._is_free)

    def leave(self) -> None:
        """The agent is gone."""
        self.gone, self.free = True, False
        if self._timer is not None:
            self._timer.cancel()
        self.left()

    def _is_free(self) -> None:
        self._timer, self.free = None, True
        self._line.match()


class Waiter:
    """A caller in a queue. Loop thread. Made by `Line.waiting`."""

    def __init__(self, line: Line, call: Call) -> None:
        loop = asyncio.get_running_loop()
        self.call = call
        self.since_s = loop.time()
        self.connected_s: float | None = None
        self.reason = "hangup"
        """Why the caller left the queue."""
        self.rings = False
        """Agents are being called for this caller."""
        self.server: asyncio.Future[Server] = loop.create_future()
        self.agents: asyncio.Future[tuple[Agent, ...]] = loop.create_future()
        self._line = line

    @property
    def waited_ms(self) -> int:
        """Until now, or until they were connected."""
        until_s = self.connected_s if self.connected_s is not None else asyncio.get_running_loop().time()
        return round((until_s - self.since_s) * 1000)

    @property
    def position(self) -> int:
        return self._line.waiters.index(self) + 1

    async def offer(self) -> Server | tuple[Agent, ...]:
        """Who is next for this caller: somebody who has dialled in, or those to be called. They are busy from now on.

        Safe to cancel. A server may come also while agents are called (`server`).
        """
        self._line.match()
        offers: set[asyncio.Future[Any]] = {self.server, self.agents}
        await asyncio.wait(offers, return_when=asyncio.FIRST_COMPLETED)
        if self.server.done():
            return self.take_server()
        self.rings = True
        offered, self.agents = self.agents.result(), asyncio.get_running_loop().create_future()
        return offered

    def take_server(self) -> Server:
        """The server that was offered."""
        offered, self.server = self.server.result(), asyncio.get_running_loop().create_future()
        return offered

    def connected(self) -> None:
        """Somebody talks with the caller: all others move up, and whoever was offered beside is for them."""
        self.reason = "answered"
        self.connected_s = asyncio.get_running_loop().time()
        self._line.waiters.remove(self)
        self.give_back()

    def give_back(self) -> None:
        """Whoever was offered and not taken is free again."""
        if self.server.done():
            self.take_server().release(0)
        if self.agents.done():
            offered, self.agents = self.agents.result(), asyncio.get_running_loop().create_future()
            for agent in offered:
                self._line.free(agent)


class Line:
    """One queue of a tenant. Made by `Queues`."""

    def __init__(self, queues: Queues, tenant: str, name: str, spec: Spec) -> None:
        self.tenant, self.name, self.spec = tenant, name, spec
        self.waiters: list[Waiter] = []
        self.servers: list[Server] = []
        self._queues = queues

    @property
    def full(self) -> bool:
        return len(self.waiters) >= self.spec.max

    @contextmanager
    def waiting(self, call: Call) -> Iterator[Waiter]:
        """A caller waits for the length of a `with` block, or until `Waiter.connected`."""
        waiter = Waiter(self, call)
        self.waiters.append(waiter)
        call.emit(QueueEntered(queue=self.name, position=waiter.position, waiting=len(self.waiters)))
        try:
            yield waiter
        finally:
            if waiter.connected_s is None:
                self.waiters.remove(waiter)
            waiter.give_back()
            call.emit(QueueLeft(queue=self.name, reason=waiter.reason, waited_ms=waiter.waited_ms))
            self._queues.tidy(self)
            self.match()

    @contextmanager
    def serving(self, call: Call, *, rests: Callable[[], None], serves: Callable[[], None]) -> Iterator[Server]:
        """An agent is there for the length of a `with` block."""
        server = Server(self, call, rests=rests, serves=serves)
        self.servers.append(server)
        try:
            server._rests()
            self.match()
            yield server
        finally:
            self.servers.remove(server)
            server.leave()
            self._queues.tidy(self)

    def match(self) -> None:
        """Give everybody who is free to whoever has waited longest. Those who have dialled in come before those who
        must be called: they are there.
        """
        for waiter in self.waiters:
            if waiter.server.done():
                continue
            if (server := self._free_server()) is not None:
                server.take()
                waiter.server.set_result(server)
            elif not waiter.rings and not waiter.agents.done() and (agents := self._free_agents()):
                for agent in agents:
                    agent.busy = True
                waiter.agents.set_result(agents)

    def free(self, agent: Agent, rest_s: float = 0.0, *, talked: bool = False) -> None:
        """Nobody is with the agent any more; they may be called again after rest_s."""
        loop = asyncio.get_running_loop()
        agent.busy, agent.rests = False, True
        if talked:
            agent.idle_since_s = loop.time()
        agent.timer = loop.call_later(rest_s, self._rested, agent)

    def _rested(self, agent: Agent) -> None:
        agent.rests, agent.timer = False, None
        self._queues.match(self.tenant)

    def _free_server(self) -> Server | None:
        free = [server for server in self.servers if server.free]
        return min(free, key=lambda server: server.idle_since_s) if free else None

    def _free_agents(self) -> tuple[Agent, ...]:
        agents = [self._queues.agent(self.tenant, to) for to in dict.fromkeys(self.spec.agents)]
        free = [agent for agent in agents if not agent.busy and not agent.rests]
        if self.spec.strategy == "longest_idle":
            free.sort(key=lambda agent: agent.idle_since_s)
        return tuple(free if self.spec.strategy == "all" else free[:1])


class Queues:
    """All queues of a process. Loop thread."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], Line] = {}
        self._agents: dict[tuple[str, str], Agent] = {}

    def line(self, tenant: str, name: str, spec: Spec) -> Line:
        """A queue by its name. spec: what the newest dialplan says; it holds for those who wait already, too."""
        line = self._lines.setdefault((tenant, name), Line(self, tenant, name, spec))
        line.spec = spec
        return line

    def agent(self, tenant: str, to: str) -> Agent:
        """One agent is the same in all queues of a tenant."""
        return self._agents.setdefault((tenant, to), Agent(to))

    def match(self, tenant: str) -> None:
        """Somebody is free again."""
        for line in list(self._lines.values()):
            if line.tenant == tenant:
                line.match()

    def tidy(self, line: Line) -> None:
        """Forget a queue that nobody is in."""
        key = (line.tenant, line.name)
        if not line.waiters and not line.servers and self._lines.get(key) is line:
            del self._lines[key]

    def waiting(self) -> dict[str, float]:
        """Callers that wait, by the queue's name."""
        return {name: sum(len(line.waiters) for line in lines) for name, lines in self._by_name().items()}

    def longest_wait_s(self) -> dict[str, float]:
        """Of those who wait now, by the queue's name."""
        now_s = asyncio.get_running_loop().time()
        return {
            name: max((now_s - waiter.since_s for line in lines for waiter in line.waiters), default=0.0)
            for name, lines in self._by_name().items()
        }

    def _by_name(self) -> dict[str, Sequence[Line]]:
        names = sorted({name for _tenant, name in self._lines})
        return {name: [line for line in self._lines.values() if line.name == name] for name in names}
