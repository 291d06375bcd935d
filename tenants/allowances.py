"""What a tenant may still use: calls of a second, minutes of a day, spend of a day and a month, requests to the API,
room for recordings.

Owns the limits' names and words, when they begin anew, and who is told how often. Declares what it needs of whoever
counts for all processes (the bus does). Refuses to know calls and requests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol

from sipserver.tenants.settings import TenantLimits

MICRO = 1_000_000
"""Spend is counted in millionths."""
DAY_S, MONTH_S = 86_400.0, 31 * 86_400.0
SECOND_S = 5.0
AGAIN_S = 60.0
"""A limit that is reached is told no more often than that."""
NEAR_PERCENT = 80
_MOST_TOLD = 10_000
STORED_S = DAY_S
"""How long it matters what was kept when somebody looked last."""
_USED_UP = ("minutes_a_day", "spend_a_day", "spend_a_month")
"""Limits of what only grows within its time. Those that fall again are watched (`nearness`)."""


class Meters(Protocol):
    """As `bus.contract.Meters`."""

    async def draw(self, wanted: Mapping[str, Any]) -> Any: ...


First = Callable[[str, float], Any]
"""As `bus.contract.Once.first`."""
MakeDraw = Callable[..., Any]
"""As `bus.contract.Draw`."""


@dataclass(frozen=True, slots=True)
class Reached:
    """A limit that was reached. code, phrase: of the answer to an INVITE. retry_after_s: 0: not soon. shared: for all
    processes; another one may have something left otherwise. hang_up: calls that run end as well.
    """

    limit: str
    most: str
    used: str
    code: int
    phrase: str
    retry_after_s: int
    shared: bool = True
    hang_up: bool = False

    @property
    def text(self) -> str:
        return f"the limit {self.limit} is reached: {self.used} of {self.most}"


@dataclass(frozen=True, slots=True)
class Told:
    """What the tenant should hear of: a limit that is reached, or near."""

    near: bool
    limit: str
    most: str
    used: str


@dataclass(frozen=True, slots=True)
class Allowed:
    """reached: None: it may be."""

    reached: Reached | None = None
    told: Sequence[Told] = field(default_factory=tuple)


_FREE = Allowed()
_CODES = {
    "calls_per_s": (503, "Too Many Calls", 1),
    "minutes_a_day": (403, "Minutes Of The Day Used Up", 0),
    "spend_a_day": (403, "Spend Of The Day Used Up", 0),
    "spend_a_month": (403, "Spend Of The Month Used Up", 0),
    "api_per_s": (503, "Too Many Requests", 1),
    "storage_bytes": (403, "No Room For Recordings", 0),
}


class Allowances:
    """Loop thread. now: seconds since the epoch."""

    def __init__(
        self,
        tenants: Mapping[str, TenantLimits],
        meters: Meters,
        first: First,
        draw: MakeDraw,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._tenants, self._meters, self._first, self._draw, self._now = tenants, meters, first, draw, now
        self._near: dict[str, None] = {}
        """Scopes of which it was told that they are near their ends."""

    async def call(self, tenant: str) -> Allowed:
        """One more call; its first minute is taken."""
        limits = self._tenants.get(tenant)
        if limits is None:
            return _FREE
        wanted: dict[str, Any] = {}
        if limits.calls_per_s:
            scope = f"calls_per_s/{tenant}/{int(self._now())}"
            wanted[scope] = self._draw(limits.calls_per_s, 1, SECOND_S)
        return await self._ask(tenant, limits, {**wanted, **self._minutes_and_spend(tenant, limits)})

    async def minute(self, tenant: str) -> Allowed:
        """One more minute of a call that runs. It is counted also when it is one too many, if the call goes on."""
        limits = self._tenants.get(tenant)
        if limits is None:
            return _FREE
        allowed = await self._ask(tenant, limits, self._minutes_and_spend(tenant, limits))
        if allowed.reached is not None and not allowed.reached.hang_up and limits.minutes_a_day:
            await self._meters.draw({minutes_scope(tenant, self._now()): self._draw(0, 1, 2 * DAY_S, True)})
        return allowed

    async def unused(self, tenant: str) -> None:
        """The first minute of a call was not needed: nobody answered."""
        limits = self._tenants.get(tenant)
        if limits is not None and limits.minutes_a_day:
            await self._meters.draw({minutes_scope(tenant, self._now()): self._draw(0, -1, 2 * DAY_S, True)})

    async def request(self, tenant: str) -> Allowed:
        """One more request to the API."""
        limits = self._tenants.get(tenant)
        if limits is None or not limits.api_per_s:
            return _FREE
        scope = f"api_per_s/{tenant}/{int(self._now())}"
        return await self._ask(tenant, limits, {scope: self._draw(limits.api_per_s, 1, SECOND_S)})

    async def recording(self, tenant: str) -> Allowed:
        """One more recording, or message of voicemail. How long it will be nobody knows: it may be begun while anything
        is left.
        """
        limits = self._tenants.get(tenant)
        if limits is None or not limits.storage_bytes:
            return _FREE
        return await self._ask(tenant, limits, {storage_scope(tenant): self._draw(limits.storage_bytes, 0, STORED_S)})

    async def full(self, tenant: str, most: int) -> Sequence[Told]:
        """The tenant has no place for one more call at a time (which the bus counts)."""
        return await self._told(tenant, "calls", str(most), str(most))

    async def used(self, tenant: str) -> Mapping[str, str]:
        """By limit, of minutes and spend that are limited, so far. Nothing is drawn."""
        limits = self._tenants.get(tenant)
        wanted = {} if limits is None else self._minutes_and_spend(tenant, limits)
        if not wanted:
            return {}
        looks = {scope: self._draw(draw.limit, 0, draw.lives_s, True) for scope, draw in wanted.items()}
        used = (await self._meters.draw(looks)).used
        return {(name := scope.partition("/")[0]): _shown(name, used[scope]) for scope in wanted}

    def limits_minutes(self, tenant: str) -> bool:
        """Whether calls that run have to ask for every minute."""
        limits = self._tenants.get(tenant)
        return limits is not None and bool(limits.minutes_a_day or limits.spend_a_day or limits.spend_a_month)

    def _minutes_and_spend(self, tenant: str, limits: TenantLimits) -> Mapping[str, Any]:
        wanted: dict[str, Any] = {}
        if limits.minutes_a_day:
            wanted[minutes_scope(tenant, self._now())] = self._draw(limits.minutes_a_day, 1, 2 * DAY_S)
        for name, most in (("spend_a_day", limits.spend_a_day), ("spend_a_month", limits.spend_a_month)):
            if most:
                wanted[spend_scope(name, tenant, self._now())] = self._draw(micro(most), 0, 2 * MONTH_S)
        return wanted

    async def _ask(self, tenant: str, limits: TenantLimits, wanted: Mapping[str, Any]) -> Allowed:
        if not wanted:
            return _FREE
        drawn = await self._meters.draw(wanted)
        if drawn.full is None:
            return Allowed(None, await self._nearing(wanted, drawn.used))
        name = drawn.full.scope.partition("/")[0]
        most, used = _shown(name, drawn.full.limit), _shown(name, drawn.used[drawn.full.scope])
        code, phrase, retry_after_s = _CODES[name]
        hang_up = limits.on_exceeded == "hangup"
        reached = Reached(name, most, used, code, phrase, retry_after_s, drawn.full.shared, hang_up)
        return Allowed(reached, await self._told(tenant, name, most, used))

    async def _told(self, tenant: str, name: str, most: str, used: str) -> Sequence[Told]:
        if await self._first(f"limit.exceeded/{name}/{tenant}", AGAIN_S):
            return (Told(False, name, most, used),)
        return ()

    async def _nearing(self, wanted: Mapping[str, Any], used: Mapping[str, int]) -> Sequence[Told]:
        found: list[Told] = []
        for scope, draw in wanted.items():
            name = scope.partition("/")[0]
            near = name in _USED_UP and 100 * used[scope] >= NEAR_PERCENT * draw.limit
            if not near or scope in self._near:
                continue
            self._near[scope] = None
            if len(self._near) > _MOST_TOLD:
                del self._near[next(iter(self._near))]
            if await self._first(f"limit.near/{scope}", draw.lives_s):
                found.append(Told(True, name, _shown(name, draw.limit), _shown(name, used[scope])))
        return found


def minutes_scope(tenant: str, at_s: float) -> str:
    return f"minutes_a_day/{tenant}/{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d}"


def spend_scope(name: str, tenant: str, at_s: float) -> str:
    """name: spend_a_day | spend_a_month."""
    form = "%Y-%m-%d" if name == "spend_a_day" else "%Y-%m"
    return f"{name}/{tenant}/{datetime.fromtimestamp(at_s, UTC):{form}}"


def storage_scope(tenant: str) -> str:
    return f"storage_bytes/{tenant}"


def micro(amount: Decimal) -> int:
    return int(amount * MICRO)


def day_begin(at_s: float) -> datetime:
    """Of the day in UTC."""
    return datetime.fromtimestamp(at_s, UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def month_begin(at_s: float) -> datetime:
    first = day_begin(at_s)
    return first - timedelta(days=first.day - 1)


def _shown(name: str, count: int) -> str:
    return f"{Decimal(count) / MICRO:f}" if name.startswith("spend") else str(count)
