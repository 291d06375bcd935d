"""Who asks: a program with an API key, or a person who is logged in. Pure.

Owns what both have in common, so that operations see one thing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sipserver.tenants.keys import ApiKey, Scope
from sipserver.tenants.roles import PERMISSIONS, Role
from sipserver.tenants.users import Session, User

OPERATOR = "operator"
"""The actor, not the role."""


@dataclass(frozen=True, slots=True)
class Principal:
    """id: of the key or the user. name: what people call it. role: up to which one it may give roles. actor: as the
    audit log has it. session: of a person. expires_at: when a key ends by itself.
    """

    id: str
    tenant: str
    name: str
    scopes: frozenset[Scope]
    role: Role
    actor: str
    session: Session | None = None
    expires_at: datetime | None = None

    @property
    def called(self) -> str:
        """In texts for people of the tenant."""
        return f"API key {self.id}" if self.session is None else f"user {self.name}"


def of_key(key: ApiKey) -> Principal:
    """A key gives roles as an admin does, if it may write users at all."""
    return Principal(key.id, key.tenant, key.name, key.scopes, Role.ADMIN, f"key:{key.id}", None, key.expires_at)


def of_user(user: User, session: Session) -> Principal:
    return Principal(user.id, user.tenant, user.email, PERMISSIONS[user.role], user.role, user.actor, session)


def of_token(tenant: str, serial: str) -> Principal:
    """Whoever has a token of the gate, for the audit log: it may do this one thing."""
    return Principal(serial, tenant, "", frozenset(), Role.VIEWER, f"token:{serial}")


def of_operator(tenant: str) -> Principal:
    """Whoever has a terminal on the server, for the audit log."""
    return Principal("", tenant, "", frozenset(), Role.VIEWER, OPERATOR)


def of_system(tenant: str) -> Principal:
    """The server itself, for the audit log."""
    return Principal("", tenant, "", frozenset(), Role.VIEWER, "system")


NOBODY = Principal("", "", "", frozenset(), Role.VIEWER, "")
"""Whoever asks for what needs neither, such as logging in."""
