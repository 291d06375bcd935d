"""What the REST API takes and gives about people: logging in, sessions, users; and keys and the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from sipserver.api.rest.models import EIGHT_BYTES, Given, Limit, Moment, Taken
from sipserver.calls.commands import OneLine
from sipserver.tenants.audit_entry import Entry as LogEntry
from sipserver.tenants.principal import Principal
from sipserver.tenants.roles import Role
from sipserver.tenants.users import Session as SessionKnown
from sipserver.tenants.users import User as UserKnown

Password = Annotated[str, StringConstraints(strip_whitespace=False, min_length=1, max_length=1024)]
Name = Annotated[OneLine, Field(max_length=128)]
Email = Annotated[OneLine, Field(max_length=254)]


class Login(Taken):
    """Who comes in."""

    tenant: Name
    email: Email
    password: Password


class ChangePassword(Taken):
    current: Password
    new: Password = Field(description="12 to 256 characters.")


class Me(Given):
    """Who asks, and what that allows."""

    kind: str = Field(description="`key` or `user`.")
    id: str
    tenant: str
    name: str = Field(description="The user's e-mail address; what the key is for.")
    role: Role | None = Field(description="null: a key.")
    permissions: list[str] = Field(description="Scopes.")
    csrf: str | None = Field(description="For the header `X-CSRF-Token`; null: a key needs none.")
    session: str | None = Field(description="Its id in the list of sessions.")
    expires_at: datetime | None = Field(
        description="When the session or the key is over at the latest; null: a key that does not end by itself."
    )

    @classmethod
    def of(cls, who: Principal) -> Me:
        session = who.session
        return cls(
            kind="key" if session is None else "user",
            id=who.id,
            tenant=who.tenant,
            name=who.name,
            role=None if session is None else who.role,
            permissions=sorted(who.scopes),
            csrf=None if session is None else session.csrf,
            session=None if session is None else session.id,
            expires_at=who.expires_at if session is None else session.expires_at,
        )


class Session(Given):
    id: str
    current: bool = Field(description="The one that asks.")
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    source: str = Field(description="The address at which it began.")
    agent: str = Field(description="The browser, as it names itself.")

    @classmethod
    def of(cls, session: SessionKnown, current: SessionKnown) -> Session:
        return cls(
            id=session.id,
            current=session.digest == current.digest,
            created_at=session.created_at,
            seen_at=session.seen_at,
            expires_at=session.expires_at,
            source=session.source,
            agent=session.agent,
        )


class Sessions(Given):
    sessions: list[Session]


class CreateUser(Taken):
    """Somebody who may log in."""

    email: Email = Field(min_length=3)
    name: Name = ""
    role: Role
    password: Password | None = Field(
        default=None, description="12 to 256 characters; none: only an OpenID provider lets in."
    )


class ChangeUser(Taken):
    """What is left out stays. A new password, and `enabled: false`, end the user's sessions."""

    name: Name | None = None
    role: Role | None = None
    enabled: bool | None = None
    password: Password | None = None


class User(Given):
    id: str
    email: str
    name: str
    role: Role
    enabled: bool
    created_at: datetime
    login_at: datetime | None = Field(description="The last time.")
    locked_until: datetime | None = Field(description="After too many wrong passwords.")
    has_password: bool
    by_provider: bool = Field(description="An OpenID provider knows the user.")

    @classmethod
    def of(cls, user: UserKnown) -> User:
        return cls(
            id=user.id,
            email=user.email,
            name=user.name,
            role=user.role,
            enabled=user.disabled_at is None,
            created_at=user.created_at,
            login_at=user.login_at,
            locked_until=user.locked_until,
            has_password=user.has_password,
            by_provider=user.by_provider,
        )


class Users(Given):
    users: list[User]


class EntriesAsked(Taken):
    limit: Limit = 50
    before: int | None = Field(
        default=None, ge=1, lt=EIGHT_BYTES, description="`number` of the last one on the page before."
    )
    since: Moment | None = Field(default=None, description="At or after this moment (RFC 3339).")


class Entry(Given):
    """As docs/security.md has it."""

    number: int
    at: datetime
    actor: str
    action: str
    subject: str
    source: str
    detail: dict[str, Any]

    @classmethod
    def of(cls, entry: LogEntry) -> Entry:
        return cls(
            number=entry.number,
            at=entry.at,
            actor=entry.actor,
            action=entry.action,
            subject=entry.subject,
            source=entry.source,
            detail=dict(entry.detail),
        )


class Entries(Given):
    entries: list[Entry]

    @classmethod
    def of(cls, entries: Sequence[LogEntry]) -> Entries:
        return cls(entries=list(map(Entry.of, entries)))
