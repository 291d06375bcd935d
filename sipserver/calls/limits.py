"""The places that a call needs: in its trunk, in its tenant. Taken all or none, given back exactly once. And what its
tenant may still use.

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


class Reached(Protocol):
    """A limit of the tenant that was reached. code, phrase, retry_after_s: of the answer to an INVITE; 0: no such
    header. shared: as in Full. hang_up: calls that run end, too.
    """

    @property
    def code(self) -> int: ...
    @property
    def phrase(self) -> str: ...
    @property
    def retry_after_s(self) -> int: ...
    @property
    def shared(self) -> bool: ...
    @property
    def hang_up(self) -> bool: ...
    @property
    def text(self) -> str: ...


class Told(Protocol):
    """What stands in the record of the call that came upon it: a limit that is reached, or near."""

    @property
    def near(self) -> bool: ...
    @property
    def limit(self) -> str: ...
    @property
    def most(self) -> str: ...
    @property
    def used(self) -> str: ...


class Allowed(Protocol):
    """reached: None: it may be."""

    @property
    def reached(self) -> Reached | None: ...
    @property
    def told(self) -> Sequence[Told]: ...


class Allowances(Protocol):
    """Loop thread. Answers soon, whatever is away. As `tenants.allowances.Allowances`."""

    async def call(self, tenant: str) -> Allowed:
        """One more call; its first minute is taken."""
        ...

    async def minute(self, tenant: str) -> Allowed:
        """One more minute of a call that runs."""
        ...

    async def recording(self, tenant: str) -> Allowed:
        """One more recording, or message of voicemail."""
        ...

    async def unused(self, tenant: str) -> None:
        """The first minute of a call was not needed."""
        ...

    async def full(self, tenant: str, most: int) -> Sequence[Told]:
        """The tenant has no place for one more call at a time."""
        ...

    def limits_minutes(self, tenant: str) -> bool: ...


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
