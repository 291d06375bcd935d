"""The calls that live in this process: how a leg or an order becomes one, how many there are, how they are let go.

Owns the tasks of the calls. Refuses to know what happens within a call, and by which trunks somebody is called.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from uuid import UUID

from sipserver.calls.allowed import Allowance
from sipserver.calls.call import Call
from sipserver.calls.dialled import DialledLeg
from sipserver.calls.ids import new_id
from sipserver.calls.leg import Leg
from sipserver.calls.limits import Places
from sipserver.calls.outbound import Order
from sipserver.calls.runner import Busy, Runner
from sipserver.calls.script import script
from sipserver.calls.services import Services
from sipserver.calls.states import EndReason, State
from sipserver.dialplan.book import Routed
from sipserver.dialplan.facts import BUILT_IN, CallFacts
from sipserver.dialplan.plan import Flow, Plan
from sipserver.dialplan.steps import Amd, Step
from sipserver.errors import CallerError, CarrierError, Draining
from sipserver.events import CallRouted
from sipserver.log import logger


@dataclass(frozen=True, slots=True)
class Arrival:
    """What is known about a leg beside its offer. tenant: whose routes are asked; empty: everybody's, in order.

    call_id: a UUID under which whoever calls wants to follow the call; one that lives already is not used. variables:
    start values of the dialplan's variables; the plan's own and those that every call has come first.
    """

    tenant: str = ""
    call_id: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)

    def own_variables(self) -> dict[str, str]:
        return {name: value for name, value in self.variables.items() if name not in BUILT_IN}


ANYBODY = Arrival()
"""A leg of which nothing more is known."""


class Registry:
    """Loop thread."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._calls: dict[str, Call] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._runners: dict[str, Runner] = {}
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

    def accept(self, leg: Leg, arrival: Arrival = ANYBODY) -> None:
        """Take a leg that has arrived; what a cell calls. Never raises: each leg gets an answer and a record.

        No route is answered 404; while the process drains, 503 with Retry-After.
        """
        self.begin(leg, arrival)

    def begin(self, leg: Leg, arrival: Arrival = ANYBODY) -> Call:
        """Make a call of a leg and let it live, as `accept` does."""
        offer = leg.offer
        facts = CallFacts.of(
            offer.to_uri,
            offer.from_uri,
            offer.source,
            offer.transport,
            offer.headers,
            trunk=offer.trunk,
            direction=offer.direction,
            load=self._services.load(),
        )
        tenants = (arrival.tenant,) if arrival.tenant else self._services.tenants_of(facts)
        routed = self._route(facts, tenants)
        tenant = routed.plan.tenant if isinstance(routed, Routed) else next(iter(tenants)) if len(tenants) == 1 else ""
        call = Call(leg, self._services, tenant, call_id=self._free(arrival.call_id))

        async def story() -> None:
            if isinstance(routed, EndReason):
                call.end(routed)
                return
            full = await places.take(self._services.limits_of(call.tenant, offer.trunk))
            if full is not None:
                await allowance.full(call, full)
                return
            await allowance.ask()
            if not allowance.begin(call):
                return
            call.emit(CallRouted(route=routed.route, flow=routed.flow.name, why=routed.why))
            variables = {**arrival.own_variables(), **routed.plan.start_variables(facts, call.id)}
            await self._runner(call, routed.plan, routed.flow, variables).run()

        places, allowance = Places(self._services.limits), Allowance(self._services.allowances, tenant)
        self._live(call, story, places, allowance)
        return call

    async def originate(
        self,
        order: Order,
        *,
        tenant: str,
        flow: str = "",
        variables: Mapping[str, str] | None = None,
        amd: Amd | None = None,
        call_id: str = "",
    ) -> Call:
        """Call somebody, and run a flow of the tenant once it has answered. Returns when the INVITE is out.

        tenant: empty: the only one. flow: by name; empty: that of the route that takes calls to this number. amd: find
        out who answered before the flow begins; the flow has it in the variable `answerer`. call_id: a UUID under which
        the asker wants to follow the call. Raises, before there is a record, for what cannot begin:
        Draining, NotFound (tenant or flow), NoRoute, CapacityError (this cell has no room), CallerError (the number is
        not allowed by the plan's targets or by a trunk, no calls are placed here, the id is none or taken); with a
        record TooMany, when the tenant has used up what it may. All that happens later is in the record: a tenant
        without a free place, a trunk that does not answer. Cancelling it takes the call back.
        """
        services = self._services
        self._require_open()
        if services.outbound is None:
            raise CallerError("this server places no calls")
        call_id = self._id(call_id)
        wanted = script(
            services.book(),
            services.now(),
            order,
            tenant=tenant,
            flow=flow,
            variables=dict(variables or {}),
            load=services.load(),
        )
        tenant = wanted.plan.tenant
        leg = DialledLeg(services.outbound, order, tenant)
        places, allowance = Places(services.limits), Allowance(services.allowances, tenant)
        try:
            full = await places.take(services.limits_of(tenant, ""))
            self._require_open()
            if full is None and await allowance.ask():
                await self._dial(leg)
        except BaseException:
            places.give_back()
            raise
        call = Call(leg, services, tenant, call_id=call_id)
        if amd is not None or wanted.asks_who_answers:
            call.wiring.remember()

        async def story() -> None:
            if full is not None:
                await allowance.full(call, full)
                return
            if not allowance.begin(call):
                return
            call.emit(wanted.routed)
            await call.answer()
            runner = self._runner(call, wanted.plan, wanted.flow, wanted.variables(call.id))
            if amd is not None:
                await runner.ask(amd, "answerer")
            await runner.run()

        self._live(call, story, places, allowance)
        allowance.require()
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

    def _route(self, facts: CallFacts, tenants: Collection[str]) -> Routed | EndReason:
        """The route of a new call, or why there is none."""
        if self._draining:
            return EndReason.DRAIN
        try:
            return self._services.book().route(facts, self._services.now(), tenants) or EndReason.NO_ROUTE
        except Exception as problem:  # the edge of a call that is about to begin
            self._log.error("routing broke", exc_info=problem)
            return EndReason.INTERNAL_ERROR

    async def _dial(self, leg: DialledLeg) -> None:
        """Send the first INVITE. What trunks say to it is the call's to tell."""
        try:
            await leg.dial()
        except CarrierError:
            return
        if self._draining:
            await leg.hangup()
            self._require_open()

    def _require_open(self) -> None:
        if self._draining:
            raise Draining("this server is shutting down and takes no new calls")

    def _free(self, wanted: str) -> str:
        """The id if no call has it; otherwise a new one is made for it."""
        return "" if wanted in self._calls else wanted

    def _id(self, wanted: str) -> str:
        if not wanted:
            return new_id()
        try:
            call_id = str(UUID(wanted))
        except ValueError:
            raise CallerError("the id of a call is a UUID") from None
        if call_id in self._calls:
            raise CallerError(f"the call {call_id} lives already")
        return call_id

    def send(self, call_id: str, step: Step) -> None:
        """Have a call that lives here run a step now; see `Runner.send`. Raises CallerError."""
        self._running(call_id).send(step)

    def hold(self, call_id: str) -> None:
        """Put a call that lives here on hold; see `Runner.hold`. Raises CallerError."""
        self._running(call_id).hold()

    def _running(self, call_id: str) -> Runner:
        runner = self._runners.get(call_id)
        if runner is None:
            raise Busy("the call runs no flow yet")
        return runner

    def _runner(self, call: Call, plan: Plan, flow: Flow, variables: dict[str, str]) -> Runner:
        runner = self._runners[call.id] = Runner(call, plan, flow, variables)
        return runner

    def _live(
        self, call: Call, story: Callable[[], Coroutine[Any, Any, None]], places: Places, allowance: Allowance
    ) -> None:
        async def life() -> None:
            try:
                await call.run(story)
            finally:
                await allowance.over(call)

        self._calls[call.id] = call
        task = asyncio.create_task(life(), name=f"call {call.id}")
        self._tasks[call.id] = task
        task.add_done_callback(lambda done: self._forget(call, done))
        task.add_done_callback(lambda _: places.give_back())

    def _forget(self, call: Call, task: asyncio.Task[None]) -> None:
        del self._calls[call.id], self._tasks[call.id]
        self._runners.pop(call.id, None)
        if not task.cancelled() and (problem := task.exception()) is not None:
            self._log.error("call not closed properly", call=call.id, tenant=call.tenant, exc_info=problem)
