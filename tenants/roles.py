"""What people may do: roles, and the table of what each of them allows. Pure.

Owns who may give a role to whom. docs/security.md shows the table; a test compares the two.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

from sipserver.errors import CallerError
from sipserver.tenants.keys import ALL, Scope


class Role(enum.StrEnum):
    OWNER = "owner"
    ADMIN = "admin"
    OPERATOR = "operator"
    ANALYST = "analyst"
    VIEWER = "viewer"
    AUDITOR = "auditor"


PERMISSIONS: Mapping[Role, frozenset[Scope]] = MappingProxyType(
    {
        Role.OWNER: ALL,
        Role.ADMIN: ALL,
        Role.OPERATOR: frozenset({Scope.CALLS_READ, Scope.CALLS_WRITE, Scope.CONFIG_READ, Scope.DIALPLANS_READ}),
        Role.ANALYST: frozenset({Scope.CALLS_READ, Scope.EVENTS_READ, Scope.RECORDINGS_READ, Scope.USAGE_READ}),
        Role.VIEWER: frozenset({Scope.CALLS_READ}),
        Role.AUDITOR: frozenset({Scope.AUDIT_READ, Scope.CONFIG_READ, Scope.KEYS_READ, Scope.USERS_READ}),
    }
)
"""A new scope is for owners and admins until a role below names it."""
RANK: Mapping[Role, int] = MappingProxyType(dict.fromkeys(Role, 0) | {Role.OWNER: 2, Role.ADMIN: 1})
"""Nobody gives a role of a higher rank than his own, nor changes a user who has one."""


def role_of(name: str) -> Role:
    """Raises CallerError, naming those that there are, for one that there is not."""
    try:
        return Role(name)
    except ValueError:
        raise CallerError(f"there is no role {name!r}; there are {', '.join(Role)}") from None


def may_manage(own: Role, other: Role) -> bool:
    """Whether whoever has the one may give the other, or change users who have it."""
    return RANK[own] >= RANK[other]


def table() -> str:
    """As Markdown: a row for each scope, a column for each role."""
    rows = [
        f"| `{scope}` | {' | '.join('yes' if scope in PERMISSIONS[role] else '' for role in Role)} |" for scope in Scope
    ]
    return "\n".join([f"| scope | {' | '.join(Role)} |", "|---" * (len(Role) + 1) + "|", *rows])
