"""The places that a call needs: in its trunk, in its tenant. Taken all or none, given back exactly once.

Declares what calls need of whoever counts (the bus does); refuses to know how many processes there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class Full(Protocol):
    """A limit that was reached. shared: it holds for everybody; otherwise another process may still have a place."""

    @property
    def scope(self) -> str: ...
    @property
    def limit(self) -> int: ...
    @property
    def shared(self) -> bool: ...


class Limits(Protocol):
    """Loop thread."""

    async def take(self, places: Mapping[str, int]) -> Full | None:
        """One place in every scope (scope -> limit), all or none. None: taken. Soon, whatever is away."""
        ...

    def give(self, scopes: Sequence[str]) -> None: ...


class Places:
    """What one call has taken. limits: None where nobody counts."""

    def __init__(self, limits: Limits | None) -> None:
        self._limits = limits
        self._taken: Sequence[str] = ()
        self._over = False

    async def take(self, places: Mapping[str, int]) -> Full | None:
        """As `Limits.take`, once; whoever needs no place asks nobody."""
        if self._limits is None or not places:
            return None
        full = await self._limits.take(places)
        if full is None:
            self._taken = tuple(places)
            if self._over:
                self.give_back()
        return full

    def give_back(self) -> None:
        """The call is over; what is still being taken goes back as soon as it is ours."""
        self._over = True
        taken, self._taken = self._taken, ()
        if taken and self._limits is not None:
            self._limits.give(taken)
