"""The order in which the engines of a fallback chain are tried. Pure but for the clock it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable

REST_S = 30.0
"""An engine that failed stands behind the others for this long, so that not every turn waits for its timeout."""

Clock = Callable[[], int]
"""Nanoseconds on the monotonic clock."""


class Chain:
    """Which engines failed lately, for one call. Loop thread."""

    def __init__(self, clock: Clock, rest_s: float = REST_S) -> None:
        self._clock = clock
        self._rest_ns = int(rest_s * 1e9)
        self._failed_ns: dict[str, int] = {}

    def order(self, names: Iterable[str]) -> list[str]:
        """The names, well ones first, each group in the given order."""
        now = self._clock()
        return sorted(dict.fromkeys(names), key=lambda name: self._resting(name, now))

    def failed(self, name: str) -> None:
        self._failed_ns[name] = self._clock()

    def worked(self, name: str) -> None:
        self._failed_ns.pop(name, None)

    def _resting(self, name: str, now: int) -> bool:
        failed = self._failed_ns.get(name)
        return failed is not None and now - failed < self._rest_ns


def milliseconds(nanoseconds: int) -> int:
    return max(0, round(nanoseconds / 1e6))
