"""What a call that we place is to do once it is answered: the flow of a tenant's dialplan, and its first variables.

Pure. Refuses to know how somebody is called.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sipserver.calls.outbound import Order
from sipserver.dialplan.book import Book
from sipserver.dialplan.facts import BUILT_IN, CallFacts
from sipserver.dialplan.plan import Flow, Plan
from sipserver.dialplan.steps import Amd
from sipserver.dialplan.targets import allows_target
from sipserver.errors import CallerError, NoRoute, NotAllowed, NotFound
from sipserver.events import CallRouted

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
NAMED = -1
"""Instead of the index of a route, where whoever asked for the call named the flow."""


@dataclass(frozen=True, slots=True)
class Script:
    """routed: how the record shows that the flow was chosen."""

    plan: Plan
    flow: Flow
    routed: CallRouted
    facts: CallFacts
    given: Mapping[str, str]

    @property
    def asks_who_answers(self) -> bool:
        """Whether a step of the plan may want to know: the first words are then kept for it."""
        return any(isinstance(step, Amd) for _at, step in self.plan.parts())

    def variables(self, call_id: str) -> dict[str, str]:
        """A new dict with what the call's variables are before the first step."""
        return {**self.plan.start_variables(self.facts, call_id), **self.given}


def script(
    book: Book,
    now: datetime,
    order: Order,
    *,
    tenant: str,
    flow: str = "",
    variables: Mapping[str, str],
    load: float = 0.0,
) -> Script:
    """tenant: empty: the only one. flow: by name; empty: that of the plan's first route that takes calls to `order.to`.
    now: with a time zone. load: percent of this process' places that are taken.

    Raises NotFound (tenant, flow), NoRoute, NotAllowed: whoever asks, and whatever flow is named, nobody but the plan's
    targets is called; CallerError for variables that no dialplan could set.
    """
    plan = book.plans[0] if not tenant and len(book.plans) == 1 else book.plan(tenant)
    if plan is None:
        known = _listed(each.tenant for each in book.plans)
        raise NotFound(f"no dialplan is for the tenant {tenant!r}" if tenant else f"name a tenant: {known}")
    tenant = plan.tenant
    for name in variables:
        if name in BUILT_IN or not _VARIABLE.fullmatch(name):
            raise CallerError(f"{name!r} cannot be set: a variable is letters, digits and _, and none that calls have")
    if not allows_target(plan, order.to):
        raise NotAllowed(f"the number or address is not allowed by `targets` of the dialplan of {tenant}")
    facts = CallFacts.of(
        order.to, order.from_user, headers=order.headers, trunk=order.trunk, direction="outbound", load=load
    )
    if flow:
        if flow not in plan.flows:
            raise NotFound(f"the tenant {tenant} has no flow {flow!r}; there are {_listed(plan.flows)}")
        return Script(plan, plan.flows[flow], CallRouted(route=NAMED, flow=flow, why="named"), facts, variables)
    index = plan.route(facts, now)
    if index is None:
        raise NoRoute(f"no route of the tenant {tenant} takes calls to this number; name a flow")
    route = plan.routes[index]
    routed = CallRouted(route=index, flow=route.flow, why=route.match.why())
    return Script(plan, plan.flows[route.flow], routed, facts, variables)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
