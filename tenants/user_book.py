"""The users of all tenants: made, changed, deleted, let in by their password or by a provider's word.

Owns what an attempt to log in costs whoever guesses. Refuses to know tables, requests and who may do this.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sipserver import tenant_name
from sipserver.errors import CallerError, NotFound
from sipserver.store.users import UserRow, UserRows
from sipserver.tenants.passwords import Passwords, check
from sipserver.tenants.roles import Role
from sipserver.tenants.users import MOST_EMAIL, User, email_of

FREE_TRIES = 10
"""Wrong passwords in a row before an account is locked; more than may be looked at in all processes at one moment."""
LOCKS_S = (30, 60, 120, 240, 480, 900)
"""For so long by the attempt that is one too many, and by each after it."""


@dataclass(frozen=True, slots=True)
class LetIn:
    """user: None: nobody. password: the hash that was right. locked: this attempt locked the account."""

    user: User | None
    password: str | None = None
    locked: User | None = None


class UserBook:
    """Loop thread. Raises what the database raises. clock: now, aware."""

    def __init__(
        self, rows: UserRows, passwords: Passwords, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._rows, self._passwords, self._clock = rows, passwords, clock

    async def create(
        self,
        tenant: str,
        email: str,
        name: str,
        role: Role,
        *,
        password: str | None = None,
        subject: tuple[str, str] | None = None,
    ) -> User:
        """subject: issuer and subject at a provider. Raises CallerError for what is not taken, or there already."""
        tenant_name.checked(tenant)
        kept = None if password is None else await self._passwords.hash(password)
        issuer, at_issuer = subject or (None, None)
        row = UserRow(
            id=uuid.uuid4().hex,
            tenant=tenant,
            email=email_of(email),
            name=name,
            role=role,
            created_at=self._clock(),
            password=kept,
            issuer=issuer,
            subject=at_issuer,
        )
        if not await self._rows.add(row):
            raise CallerError(f"{tenant} has a user {row.email} already")
        return user_of(row)

    async def get(self, user_id: str, *, tenant: str) -> User:
        """Raises NotFound, also for a user of another tenant."""
        return user_of(await self._row(user_id, tenant))

    async def by_email(self, tenant: str, email: str) -> User:
        """Raises NotFound."""
        row = await self._rows.by_email(tenant, email_of(email))
        if row is None:
            raise NotFound(f"{tenant} has no user {email}")
        return user_of(row)

    async def list(self, tenant: str | None = None) -> Sequence[User]:
        return [user_of(row) for row in await self._rows.list(tenant)]

    async def change(
        self,
        user_id: str,
        *,
        tenant: str,
        name: str | None = None,
        role: Role | None = None,
        enabled: bool | None = None,
        password: str | None = None,
    ) -> User:
        """What is None stays. Who is disabled or has a new password is logged out everywhere. Raises NotFound, and
        CallerError when the last owner would go.
        """
        before = await self._row(user_id, tenant)
        values: dict[str, Any] = {}
        if name is not None:
            values["name"] = name
        if role is not None:
            values["role"] = role.value
        if enabled is not None and enabled != (before.disabled_at is None):
            values["disabled_at"] = None if enabled else self._clock()
        if password is not None:
            check(password)
            values |= {"password": await self._passwords.hash(password), "failed": 0, "locked_until": None}
        if not values:
            return user_of(before)
        row = await self._rows.change(user_id, values, ends_sessions=enabled is False or password is not None)
        if row is None:
            raise NotFound("there is no such user")
        return user_of(row)

    async def delete(self, user_id: str, *, tenant: str) -> User:
        """The user that was; sessions end at once, and the address is free again. Raises NotFound, and CallerError for
        the last owner.
        """
        await self._row(user_id, tenant)
        row = await self._rows.delete(user_id)
        if row is None:
            raise NotFound("there is no such user")
        return user_of(row)

    async def let_in(self, tenant: str, email: str, password: str) -> LetIn:
        """By a password. It takes as long for those whom there is not, who are disabled, locked or have none. Raises
        TooMany when too many wait for this.
        """
        async with self._passwords.turn() as turn:
            row = await self._rows.by_email(tenant[:128], email.strip().casefold()[:MOST_EMAIL])
            now = self._clock()
            counted = None if row is None else await self._rows.attempt(row.id, now, _locks(now))
            usable = None if counted is None or counted.disabled_at is not None else counted.password
            if not await turn.verify(usable, password) or counted is None or usable is None:
                locked = counted is not None and counted.locked_until is not None
                return LetIn(None, locked=user_of(counted) if counted is not None and locked else None)
            renewed = await turn.hash(password) if turn.is_outdated(usable) else None
        await self._rows.came_in(counted.id, now, renewed)
        return LetIn(user_of(counted), renewed or usable)

    async def is_password(self, user_id: str, password: str) -> bool:
        """Whether it is the user's, who is logged in; an attempt as any other."""
        row = await self._rows.get(user_id)
        return row is not None and (await self.let_in(row.tenant, row.email, password)).user is not None

    async def by_subject(self, tenant: str, issuer: str, subject: str) -> User | None:
        row = await self._rows.by_subject(tenant, issuer, subject)
        return None if row is None else user_of(row)

    async def link(self, tenant: str, email: str, issuer: str, subject: str) -> User | None:
        """The user with this address belongs to the subject from now on; None: there is none, or he has one already."""
        row = await self._rows.by_email(tenant, email_of(email))
        if row is None or not await self._rows.link(row.id, issuer, subject):
            return None
        return await self.by_subject(tenant, issuer, subject)

    async def came_by_provider(self, user: User) -> LetIn:
        """Nobody, when the user is disabled."""
        row = await self._rows.get(user.id)
        if row is None or row.disabled_at is not None:
            return LetIn(None)
        await self._rows.came_in(row.id, self._clock())
        return LetIn(user_of(row), row.password)

    async def _row(self, user_id: str, tenant: str) -> UserRow:
        row = await self._rows.get(user_id)
        if row is None or row.tenant != tenant:
            raise NotFound("there is no such user")
        return row


def _locks(now: datetime) -> dict[int, datetime]:
    return {FREE_TRIES + at: now + timedelta(seconds=seconds) for at, seconds in enumerate(LOCKS_S)}


def user_of(row: UserRow) -> User:
    return User(
        row.id,
        row.tenant,
        row.email,
        row.name,
        Role(row.role),
        row.created_at,
        row.disabled_at,
        row.login_at,
        row.locked_until,
        row.password is not None,
        row.subject is not None,
    )
