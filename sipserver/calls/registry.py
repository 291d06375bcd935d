"""The calls that live in this process: how a leg becomes one, how many there are, how they are let go.

Owns the tasks of the calls. Refuses to know what happens within a call.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

from sipserver.calls.call import Call
from sipserver.calls.leg import Leg
from sipserver.calls.limits import Places
from sipserver.calls.runner import Runner
from sipserver.calls.services import Services
from sipserver.calls.states import EndReason, State
from sipserver.dialplan.book import Routed
from sipserver.dialplan.facts import CallFacts
from sipserver.events import CallLimited, CallRouted
from sipserver.log import logger


class Registry:
    """Loop thread."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._calls: dict[str, Call] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._draining = False
        self._log = logger("calls")

    @property
    def calls(self) -> Mapping[str, Call]:
        """Live calls by id."""
        return MappingProxyType(self._calls)

    @property
    def services(self) -> Services:
        """What the calls share."""
        return self._services

    @property
    def draining(self) -> bool:
        return self._draining

    def counts(self) -> dict[State, int]:
        """Live calls by state; every state is named."""
        counted = Counter(call.state for call in self._calls.values())
        return {state: counted[state] for state in State if state is not State.ENDED}

    def accept(self, leg: Leg) -> None:
        """Take a leg that has arrived; what a cell calls. Never raises: each leg gets an answer and a record.

        No route is answered 404; while the process drains, 503 with Retry-After.
        """
        self.begin(leg)

    def begin(self, leg: Leg) -> Call:
        """Make a call of a leg and let it live, as `accept` does."""
        offer = leg.offer
        facts = CallFacts.of(offer.to_uri, offer.from_uri, offer.source, offer.transport, offer.headers)
        routed = self._route(facts)
        call = Call(leg, self._services, routed.plan.tenant if isinstance(routed, Routed) else "")

        async def story() -> None:
            if isinstance(routed, EndReason):
                call.end(routed)
                return
            if not await self._admitted(call, places):
                return
            call.emit(CallRouted(route=routed.route, flow=routed.flow.name, why=routed.why))
            variables = routed.plan.start_variables(facts, call.id)
            await Runner(call, routed.plan, routed.flow, variables).run()

        places = None if self._services.limits is None else Places(self._services.limits)
        self._calls[call.id] = call
        task = asyncio.create_task(call.run(story), name=f"call {call.id}")
        self._tasks[call.id] = task
        task.add_done_callback(lambda done: self._forget(call, done))
        if places is not None:
            task.add_done_callback(lambda _: places.give_back())
        return call

    async def drain(self, deadline_s: float) -> int:
        """Take no new calls, let the running ones go on for deadline_s, then end them. Returns how many were ended.

        When it returns no call lives. Calling it again with a shorter deadline ends them earlier.
        """
        self._draining = True
        tasks = set(self._tasks.values())
        if tasks and deadline_s > 0:
            await asyncio.wait(tasks, timeout=deadline_s)
        late = list(self._calls.values())
        for call in late:
            call.end(EndReason.DRAIN, "the server is shutting down")
        if self._tasks:
            await asyncio.wait(set(self._tasks.values()))
        return len(late)

    def _route(self, facts: CallFacts) -> Routed | EndReason:
        """The route of a new call, or why there is none."""
        if self._draining:
            return EndReason.DRAIN
        try:
            return self._services.book().route(facts, self._services.now()) or EndReason.NO_ROUTE
        except Exception as problem:  # the edge of a call that is about to begin
            self._log.error("routing broke", exc_info=problem)
            return EndReason.INTERNAL_ERROR

    async def _admitted(self, call: Call, places: Places | None) -> bool:
        """Whether trunk and tenant have a place for the call; otherwise it is ended."""
        if places is None or not (needed := self._services.limits_of(call.tenant, call.leg.offer.trunk)):
            return True
        full = await places.take(needed)
        if full is None:
            return True
        call.emit(CallLimited(scope=full.scope, limit=full.limit, shared=full.shared))
        call.end(EndReason.LIMIT, f"{full.scope} has {full.limit} calls", refusal="" if full.shared else "full")
        return False

    def _forget(self, call: Call, task: asyncio.Task[None]) -> None:
        del self._calls[call.id], self._tasks[call.id]
        if not task.cancelled() and (problem := task.exception()) is not None:
            self._log.error("call not closed properly", call=call.id, tenant=call.tenant, exc_info=problem)
