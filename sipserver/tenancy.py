"""Whose a call is, before anything else happens to it: found from its trunk, a header that the trunk vouches for, and
the number that was called. Pure.

Owns the order of these. Refuses to know routes: where this leaves several tenants, or all, their routes decide.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from sipserver.dialplan import globs
from sipserver.dialplan.facts import CallFacts
from sipserver.trunks.settings import TrunkSettings

ANYBODY: frozenset[str] = frozenset()
NOBODY = frozenset({""})
"""No tenant is called so."""
_SIGNS = frozenset("*?[!")


class Tenancy:
    """numbers: tenant -> globs of numbers or users that are called, `!` in front of those that are not meant."""

    def __init__(self, trunks: Iterable[TrunkSettings], numbers: Mapping[str, Collection[str]]) -> None:
        self._trunks = {trunk.name: trunk for trunk in trunks}
        self._exact: dict[str, str] = {}
        self._globs: list[tuple[tuple[str, ...], str]] = []
        for tenant, patterns in numbers.items():
            if any(set(pattern) & _SIGNS for pattern in patterns):
                self._globs.append((tuple(patterns), tenant))
            else:
                self._exact |= dict.fromkeys(patterns, tenant)

    def of(self, facts: CallFacts) -> Collection[str]:
        """Whose routes are asked; ANYBODY: everybody's. NOBODY: the trunk's tenants do not have the number, or its
        header names none of them.
        """
        trunk = self._trunks.get(facts.trunk)
        candidates = frozenset(trunk.tenants) if trunk is not None else ANYBODY
        if trunk is not None and trunk.tenant_header:
            named = facts.headers.get(trunk.tenant_header.lower(), "")
            return frozenset({named}) if named and (not candidates or named in candidates) else NOBODY
        if len(candidates) == 1:
            return candidates
        owner = self._owner(facts.to_user)
        if not owner:
            return candidates
        return frozenset({owner}) if not candidates or owner in candidates else NOBODY

    def _owner(self, number: str) -> str:
        """Empty: nobody's alone."""
        if found := self._exact.get(number):
            return found
        return next((tenant for patterns, tenant in self._globs if globs.takes(patterns, number)), "")
