"""Limits of what rises and falls (calls at a time, sound that is kept): told once when four fifths are reached, and
again only after it had fallen well below.

Owns what counts as near and as far again, and how often is looked how many calls there are. Refuses to count. Several
processes may look at the same: one of them tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from sipserver import log
from sipserver.errors import BusDown
from sipserver.store.database import UNAVAILABLE
from sipserver.tenants.allowances import DAY_S, NEAR_PERCENT, MakeDraw, Told
from sipserver.tenants.settings import TenantLimits

FAR_PERCENT = 65
"""Below it the next crossing is told again."""
LOOK_S = 1.0
_TOLD_S = 31 * DAY_S
"""Nobody is reminded of what has been near all the time sooner than that."""


class Meters(Protocol):
    """As `bus.contract.Meters`."""

    async def draw(self, wanted: Mapping[str, Any]) -> Any: ...
    async def put(self, scope: str, used: int, lives_s: float, *, lower: bool = False) -> None: ...


Tell = Callable[[str, Told], Awaitable[None]]
"""(tenant, what): raises what a database raises that does not answer."""
Used = Callable[[Sequence[str]], Awaitable[Mapping[str, int]]]
"""As `bus.contract.Limits.used`."""


class Nearness:
    """Loop thread. That it was told is kept where all processes see it, as a meter of one that is drawn."""

    def __init__(self, meters: Meters, draw: MakeDraw, tell: Tell) -> None:
        self._meters, self._draw, self._tell = meters, draw, tell
        self._near: dict[str, bool] = {}
        """What this process has seen last, by scope; one that is not here may have been near before its time."""

    async def seen(self, tenant: str, limit: str, used: int, most: int) -> None:
        """So much is used now."""
        scope = f"near/{limit}/{tenant}"
        if 100 * used >= NEAR_PERCENT * most:
            if self._near.get(scope) is not True:
                drawn = await self._meters.draw({scope: self._draw(1, 1, _TOLD_S)})
                if drawn.full is None:
                    await self._told(scope, tenant, Told(True, limit, str(most), str(used)))
                self._near[scope] = True
        elif 100 * used < FAR_PERCENT * most and self._near.get(scope) is not False:
            await self._meters.put(scope, 0, _TOLD_S, lower=True)
            self._near[scope] = False

    async def _told(self, scope: str, tenant: str, told: Told) -> None:
        try:
            await self._tell(tenant, told)
        except BaseException:  # whoever looks next tells it
            await self._meters.put(scope, 0, _TOLD_S, lower=True)
            raise


class CallsWatch:
    """Looks how many calls at a time tenants have. Loop thread."""

    def __init__(self, tenants: Mapping[str, TenantLimits], used: Used, nearness: Nearness) -> None:
        self._most = {f"tenant/{name}": (name, limits.calls) for name, limits in tenants.items() if limits.calls}
        self._used, self._nearness = used, nearness
        self._log = log.logger("tenants")

    async def run(self) -> None:
        """For ever; returns at once when no tenant has such a limit."""
        while self._most:
            try:
                await self.look()
            except (BusDown, *UNAVAILABLE) as away:
                self._log.debug("how many calls tenants have is not known, or cannot be told now", error=str(away))
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Once. Raises BusDown, and what `tell` raises."""
        for scope, used in (await self._used(list(self._most))).items():
            tenant, most = self._most[scope]
            await self._nearness.seen(tenant, "calls", used, most)
