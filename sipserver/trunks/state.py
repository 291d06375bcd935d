"""What is known about a trunk at this moment, as plain values: for logs, metrics, `sipserver trunks`, the choice.

Also the pauses between attempts to register. Pure.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sipserver.trunks.settings import Registration, TrunkSettings


class Registered(enum.StrEnum):
    """UNREGISTERED: not yet, or no longer because the server stops. NOT_NEEDED: the trunk does not register."""

    NOT_NEEDED = "not_needed"
    UNREGISTERED = "unregistered"
    REGISTERING = "registering"
    REGISTERED = "registered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class TrunkState:
    """reachable: what the last OPTIONS said; None before it and for a trunk without keep-alive. reason: why it is down,
    or what is not as it should be; empty when all is well. since: `time.time()` of the last change of any of these.
    """

    name: str
    registration: Registered
    reachable: bool | None = None
    reason: str = ""
    since: float = 0.0

    @property
    def up(self) -> bool:
        """Whether there is no sign that calls through it would fail."""
        return self.registration in (Registered.NOT_NEEDED, Registered.REGISTERED) and self.reachable is not False

    @property
    def word(self) -> str:
        """The state in one word: that of the registration, or `up`, `down` where the trunk does not register."""
        if self.reachable is False and self.registration in (Registered.NOT_NEEDED, Registered.REGISTERED):
            return "unreachable"
        return "up" if self.registration is Registered.NOT_NEEDED else str(self.registration)

    def plain(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "state": self.word,
            "up": self.up,
            "registration": str(self.registration),
            "reachable": self.reachable,
            "reason": self.reason,
            "since": self.since,
        }


def first_state(trunk: TrunkSettings, now: float) -> TrunkState:
    needed = trunk.register_ is not None
    return TrunkState(trunk.name, Registered.UNREGISTERED if needed else Registered.NOT_NEEDED, since=now)


def pause_s(register: Registration, failures: int, random: Callable[[], float]) -> float:
    """How long to wait after so many failures in a row (at least 1): doubled each time up to `retry_most_s`, and then
    between three quarters and all of it, so that servers that lost the same registrar do not come back in step.

    random: uniform in [0, 1).
    """
    longest = min(register.retry_most_s, register.retry_s * 2.0 ** min(failures - 1, 30))
    return longest * (0.75 + 0.25 * random())
