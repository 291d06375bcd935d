"""What is there for a tenant, by REST: agents, numbers, trunks, limits, how it is shown. Only looks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Protocol

from sipserver.api.plans import Plans
from sipserver.api.rest import config_models as models
from sipserver.api.rest.operations import Answered, Asked, Operation
from sipserver.errors import NotFound
from sipserver.tenants.keys import Scope
from sipserver.tenants.settings import TenantLimits


class Live(Protocol):
    """As `asking.Asking`."""

    async def live(self) -> Sequence[Mapping[str, Any]]: ...
    async def trunks(self) -> Sequence[Mapping[str, Any]]: ...


class Sound(Protocol):
    """As `store.running.Running`."""

    async def stored(self, tenant: str, now: datetime) -> int: ...


class Meters(Protocol):
    """As `tenants.allowances.Allowances`."""

    async def used(self, tenant: str) -> Mapping[str, str]: ...


class ConfigOperations:
    """Loop thread. tenants: as the settings have them; a tenant may be missing. sound: that is kept of calls. meters:
    of minutes and spend.
    """

    def __init__(
        self, plans: Plans, live: Live, tenants: Mapping[str, TenantLimits], sound: Sound, meters: Meters
    ) -> None:
        self._plans, self._live, self._tenants, self._sound, self._meters = plans, live, tenants, sound, meters

    def operations(self) -> Sequence[Operation]:
        def reads(name: str, path: str, does: Callable[[Asked], Awaitable[Answered]], summary: str, **more: Any) -> Any:
            return Operation(name, "GET", path, Scope.CONFIG_READ, does, summary, **more)

        one = "/agents/{agent}"
        return [
            reads("listAgents", "/agents", self._agents, "List the dialplan's agents", answer=models.Agents),
            reads("getAgent", one, self._agent, "Look at an agent", answer=models.Agent),
            reads(
                "listNumbers",
                "/numbers",
                self._numbers,
                "List which numbers lead to which flow",
                answer=models.Numbers,
            ),
            reads("listTrunks", "/trunks", self._trunks, "List the trunks and their state", answer=models.Trunks),
            reads(
                "getTenant",
                "/tenant",
                self._tenant,
                "Look at limits, what is used, and how it is shown",
                answer=models.Tenant,
            ),
        ]

    async def _agents(self, asked: Asked) -> Answered:
        return Answered(models.Agents(agents=await self._all(asked)))

    async def _agent(self, asked: Asked) -> Answered:
        for agent in await self._all(asked):
            if agent.name == asked.path["agent"]:
                return Answered(agent)
        raise NotFound("there is no such agent")

    async def _all(self, asked: Asked) -> list[models.Agent]:
        plan = await self._plans.plan(asked.key.tenant)
        return [] if plan is None else [models.Agent.of(name, spec) for name, spec in plan.agents.items()]

    async def _numbers(self, asked: Asked) -> Answered:
        plan = await self._plans.plan(asked.key.tenant)
        return Answered(models.Numbers(numbers=[models.Number.of(route) for route in (plan.routes if plan else ())]))

    async def _trunks(self, _asked: Asked) -> Answered:
        """Every tenant may call by every trunk; how much others do is not told."""
        return Answered(
            models.Trunks(trunks=[models.Trunk.model_validate(state) for state in await self._live.trunks()])
        )

    async def _tenant(self, asked: Asked) -> Answered:
        name = asked.key.tenant
        used = sum(1 for call in await self._live.live() if call["tenant"] == name)
        limits, plan = self._tenants.get(name, TenantLimits()), await self._plans.plan(name)
        stored = await self._sound.stored(name, datetime.now(UTC))
        spent = await self._meters.used(name)
        minutes = spent.get("minutes_a_day")
        return Answered(
            models.Tenant(
                name=name,
                calls=models.Calls(limit=limits.calls or None, used=used),
                calls_per_s=limits.calls_per_s or None,
                api_per_s=limits.api_per_s or None,
                minutes_a_day=models.Minutes(
                    limit=limits.minutes_a_day or None, used=None if minutes is None else int(minutes)
                ),
                spend_a_day=_spend(limits.spend_a_day, spent.get("spend_a_day")),
                spend_a_month=_spend(limits.spend_a_month, spent.get("spend_a_month")),
                agents=models.AgentCount(limit=limits.agents or None, used=len(plan.agents) if plan else 0),
                storage_bytes=models.Storage(limit=limits.storage_bytes or None, used=stored),
                numbers=list(limits.numbers),
                targets=list(limits.targets),
                hosts=list(limits.hosts),
                branding=models.Branding.of(limits.branding),
            )
        )


def _spend(limit: Decimal, used: str | None) -> models.Spend:
    return models.Spend(limit=f"{limit:f}" if limit else None, used=used)
