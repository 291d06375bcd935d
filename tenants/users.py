"""People and their sessions: what is known of them. Pure.

A session is 32 random bytes in a cookie, of which the SHA-256 is kept. Owns how both look and how long sessions last.
Refuses to know databases, requests and passwords.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sipserver.errors import CallerError
from sipserver.tenants.roles import Role

MOST_EMAIL = 254
"""RFC 5321, 4.5.3.1.3, less the brackets."""
MOST_NAME = 128
"""Characters."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_EMAIL = re.compile(r"^[^\s@<>\"',;:\\()\[\]\x00-\x1f\x7f]+@[^\s@<>\"',;:\\()\[\]\x00-\x1f\x7f]+$")


@dataclass(frozen=True, slots=True)
class User:
    """email: as `email_of` makes it. by_provider: an OpenID provider knows him. Moments are aware, in UTC."""

    id: str
    tenant: str
    email: str
    name: str
    role: Role
    created_at: datetime
    disabled_at: datetime | None
    login_at: datetime | None
    locked_until: datetime | None
    has_password: bool
    by_provider: bool

    @property
    def actor(self) -> str:
        """As the audit log has it."""
        return f"user:{self.email}"


@dataclass(frozen=True, slots=True)
class Session:
    """id: by which people name it. digest: of the cookie. csrf: what unsafe requests carry beside the cookie; empty
    where the cookie is not at hand.
    """

    id: str
    digest: str
    user_id: str
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    source: str
    agent: str
    csrf: str = ""

    def is_good(self, now: datetime, idle: timedelta) -> bool:
        return now < self.expires_at and now - self.seen_at < idle


def email_of(text: str) -> str:
    """Case folded. Raises CallerError for what is no address."""
    email = text.strip().casefold()
    if len(email) > MOST_EMAIL or not _EMAIL.match(email):
        raise CallerError("an e-mail address is NAME@DOMAIN, of 254 characters at most")
    return email


def name_of(text: str) -> str:
    """Empty for a user without one. Raises CallerError for what nobody may be called."""
    name = text.strip()
    if len(name) > MOST_NAME or _CONTROL.search(name):
        raise CallerError(f"a user's name has {MOST_NAME} characters at most, in one line")
    return name


def new_token() -> str:
    """For a cookie."""
    return secrets.token_urlsafe(32)


def digest_of(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def csrf_of(token: str) -> str:
    """Bound to the session, and of no use to find its token."""
    return hashlib.sha256(b"csrf\x00" + token.encode("utf-8", "surrogatepass")).hexdigest()
