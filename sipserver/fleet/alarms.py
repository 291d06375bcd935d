"""What somebody should look at: raised and cleared by name, told once in the log, shown until it is over."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from sipserver.log import logger


@dataclass(frozen=True, slots=True)
class Alarm:
    """since: time of day, seconds since the epoch."""

    name: str
    detail: str
    since: float


class Alarms:
    """Loop thread."""

    def __init__(self) -> None:
        self._active: dict[str, Alarm] = {}
        self._log = logger("fleet")

    @property
    def active(self) -> Mapping[str, Alarm]:
        return self._active

    def set(self, name: str, on: bool, detail: str = "") -> None:
        """name: `crash_loop_cell`, `bus_away`, ...; the same again changes nothing."""
        if on and name not in self._active:
            self._active[name] = Alarm(name, detail, time.time())
            self._log.error("alarm", alarm=name, detail=detail)
        elif not on and name in self._active:
            over = self._active.pop(name)
            self._log.warning("alarm over", alarm=name, seconds=round(time.time() - over.since))
