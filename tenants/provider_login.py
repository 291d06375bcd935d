"""Whom an OpenID provider let in, as a user: found, linked by the address, or made; with the role that the claims say.

Owns what the settings allow. Refuses to know how the provider is asked (`oidc`) and what a session is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sipserver.errors import CallerError, NotAllowed
from sipserver.log import logger
from sipserver.tenants.oidc import Identity
from sipserver.tenants.roles import RANK, Role
from sipserver.tenants.settings import ProviderSettings
from sipserver.tenants.user_book import LetIn, UserBook
from sipserver.tenants.users import User

MOST_NAME = 128


@dataclass(frozen=True, slots=True)
class Arrival:
    """deeds: for the audit log, what became of the user on the way in: name and detail."""

    who: LetIn
    deeds: Sequence[tuple[str, Mapping[str, Any]]]


class ProviderLogin:
    """Loop thread."""

    def __init__(self, users: UserBook) -> None:
        self._users = users
        self._log = logger("tenants")

    async def arrive(self, tenant: str, identity: Identity, settings: ProviderSettings) -> Arrival:
        """Raises NotAllowed for whom the settings do not let in."""
        domains = {domain.lower() for domain in settings.domains}
        if domains and identity.email.rpartition("@")[2].lower() not in domains:
            raise NotAllowed("people with this e-mail address are not let in, or the provider has not verified it")
        role = role_by_claim(identity.claims, settings)
        if settings.roles and role is None:
            raise NotAllowed("the provider says nothing that allows a role here")
        deeds: list[tuple[str, Mapping[str, Any]]] = []
        user = await self._users.by_subject(tenant, identity.issuer, identity.subject)
        if user is None and identity.email:
            user = await self._users.link(tenant, identity.email, identity.issuer, identity.subject)
            if user is not None:
                deeds.append(("user.linked", {"email": user.email, "issuer": identity.issuer}))
        if user is None:
            user = await self._made(tenant, identity, settings, role)
            deeds.append(("user.created", {"email": user.email, "role": user.role, "issuer": identity.issuer}))
        if role is not None and role is not user.role and user.disabled_at is None:
            user, changed = await self._with_role(user, role)
            deeds += [("user.changed", {"email": user.email, "role": role})] if changed else []
        found = await self._users.came_by_provider(user)
        if found.user is None:
            raise NotAllowed("this user is disabled")
        return Arrival(found, deeds)

    async def _made(self, tenant: str, identity: Identity, settings: ProviderSettings, role: Role | None) -> User:
        given = role or settings.new_role
        if not settings.create or given is None or not identity.email:
            raise NotAllowed("there is no such user here: ask an admin for one, with this verified e-mail address")
        name = "".join(character for character in identity.name if character.isprintable())[:MOST_NAME]
        subject = (identity.issuer, identity.subject)
        try:
            return await self._users.create(tenant, identity.email, name, given, subject=subject)
        except CallerError as refusal:
            # The same person may have come by two windows at once; another one has the address for good.
            if (user := await self._users.by_subject(tenant, *subject)) is not None:
                return user
            raise NotAllowed("this e-mail address is another user's") from refusal

    async def _with_role(self, user: User, role: Role) -> tuple[User, bool]:
        """A last owner stays one: the tenant would be without."""
        try:
            return await self._users.change(user.id, tenant=user.tenant, role=role), True
        except CallerError as refusal:
            self._log.warning("a role is not as the provider says", tenant=user.tenant, reason=str(refusal))
            return user, False


def role_by_claim(claims: Mapping[str, Any], settings: ProviderSettings) -> Role | None:
    """The highest that the values of the claim mean; None: none of them means one."""
    value = claims.get(settings.role_claim) if settings.role_claim else None
    values = value if isinstance(value, list) else [value]
    found = [settings.roles[each] for each in values if isinstance(each, str) and each in settings.roles]
    return max(found, key=lambda role: (RANK[role], -list(Role).index(role)), default=None)
