"""What one call asks of its tenant's allowances, from its first minute to its last, and what its record says of it.

Refuses to count: whoever counts for all processes does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sipserver.calls.call import Call
from sipserver.calls.limits import Allowances, Allowed, Full, Reached, Told
from sipserver.calls.states import EndReason
from sipserver.errors import TooMany
from sipserver.events import CallLimited, LimitExceeded, LimitNear

MINUTE_S = 60.0


class Allowance:
    """Of one call. allowances: None: nothing is counted here. Loop thread."""

    def __init__(self, allowances: Allowances | None, tenant: str) -> None:
        self._allowances, self._tenant = allowances, tenant
        self._allowed: Allowed | None = None

    async def ask(self) -> bool:
        """Whether the call may be. Once."""
        if self._allowances is not None:
            self._allowed = await self._allowances.call(self._tenant)
        return self.reached is None

    @property
    def reached(self) -> Reached | None:
        return None if self._allowed is None else self._allowed.reached

    def require(self) -> None:
        """Raises TooMany when the limit was reached."""
        if self.reached is not None:
            raise TooMany(self.reached.text, retry_after_s=self.reached.retry_after_s)

    def begin(self, call: Call) -> bool:
        """Tell the call's record what is known; False when the call may not be, which is ended then."""
        if self._allowed is not None:
            _tell(call, self._allowed.told)
        if self.reached is not None:
            _refuse(call, self.reached)
            return False
        if self._allowances is not None:
            call.tape.refused = lambda: self._recording(call)
        if self._allowances is not None and self._allowances.limits_minutes(self._tenant):
            allowances = self._allowances
            call.when_answered = lambda: call.beside(_minutes(call, allowances), "minutes")
        return True

    async def _recording(self, call: Call) -> str:
        """Why one more recording may not be; empty: it may."""
        if self._allowances is None:
            return ""
        allowed = await self._allowances.recording(self._tenant)
        _tell(call, allowed.told)
        return "" if allowed.reached is None else allowed.reached.text

    async def over(self, call: Call) -> None:
        """The call has ended: one that nobody answered has used no minute."""
        if self._allowances is not None and self._allowed is not None and self.reached is None and not call.answered:
            await self._allowances.unused(self._tenant)

    async def full(self, call: Call, full: Full) -> None:
        """Trunk or tenant has no place for the call, which ends."""
        call.emit(CallLimited(scope=full.scope, limit=full.limit, shared=full.shared))
        if self._allowances is not None and full.scope.startswith("tenant/"):
            _tell(call, await self._allowances.full(self._tenant, full.limit))
        call.end(EndReason.LIMIT, f"{full.scope} has {full.limit} calls", refusal="" if full.shared else "full")


async def _minutes(call: Call, allowances: Allowances) -> None:
    while True:
        await asyncio.sleep(MINUTE_S)
        allowed = await allowances.minute(call.tenant)
        _tell(call, allowed.told)
        if allowed.reached is not None and allowed.reached.hang_up:
            _refuse(call, allowed.reached)
            return


def _tell(call: Call, told: Sequence[Told]) -> None:
    for each in told:
        kind = LimitNear if each.near else LimitExceeded
        call.emit(kind(limit=each.limit, most=each.most, used=each.used))


def _refuse(call: Call, reached: Reached) -> None:
    call.end(
        EndReason.LIMIT,
        reached.text,
        code=reached.code,
        phrase=reached.phrase,
        refusal="" if reached.shared else "full",
        retry_after_s=reached.retry_after_s,
    )
