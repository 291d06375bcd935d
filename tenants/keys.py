"""API keys: how they look, what they allow, and how they are recognised without being kept. Pure.

A key is `sips_<id>_<secret><checksum>`: ten letters and digits that name it, 27 that only its owner has (160 bits), and
six that tell a mistyped or shortened key from one that is unknown. What is kept is a hash: the secret is random, so
that SHA-256 is enough. Owns scopes and lifetimes. Refuses to know databases, requests and people.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
import secrets
import string
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sipserver.errors import CallerError

PREFIX = "sips"
MOST_NAME = 100
"""Characters."""
_LETTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_ID, _SECRET, _CHECKSUM = 10, 27, 6
_KEY = re.compile(rf"^{PREFIX}_([0-9A-Za-z]{{{_ID}}})_([0-9A-Za-z]{{{_SECRET}}})([0-9A-Za-z]{{{_CHECKSUM}}})$")

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Scope(enum.StrEnum):
    """What a key or a role may do (`roles`). Nothing includes anything else."""

    CALLS_READ = "calls:read"
    CALLS_WRITE = "calls:write"
    RECORDINGS_READ = "recordings:read"
    EVENTS_READ = "events:read"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"
    USERS_READ = "users:read"
    USERS_WRITE = "users:write"
    AUDIT_READ = "audit:read"
    DIALPLANS_READ = "dialplans:read"
    DIALPLANS_WRITE = "dialplans:write"
    CONFIG_READ = "config:read"
    KEYS_READ = "keys:read"
    KEYS_WRITE = "keys:write"
    USAGE_READ = "usage:read"
    PRIVACY_WRITE = "privacy:write"


ALL = frozenset(Scope)
USUAL = ALL - {Scope.KEYS_WRITE, Scope.USERS_WRITE, Scope.DIALPLANS_WRITE, Scope.PRIVACY_WRITE}
"""What a key may do for which nobody says what: not what makes more keys or users, or changes what happens to calls."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key at the only moment at which it can be read. text: what its owner keeps. digest: what we keep."""

    id: str
    text: str
    digest: str


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key. tenant: whose calls it reaches. digest: of the whole key. Moments are aware, in UTC."""

    id: str
    tenant: str
    name: str
    scopes: frozenset[Scope]
    digest: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    used_at: datetime | None = None

    def is_of(self, text: str) -> bool:
        return hmac.compare_digest(self.digest, digest_of(text))

    def is_good(self, now: datetime) -> bool:
        """Neither revoked nor over."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def new_key() -> NewKey:
    name, secret = _random(_ID), _random(_SECRET)
    body = f"{PREFIX}_{name}_{secret}"
    text = f"{body}{_checksum(body)}"
    return NewKey(name, text, digest_of(text))


def id_of(text: str) -> str:
    """The id in a key; empty for what is no key: of another form, mistyped, cut off."""
    found = _KEY.match(text)
    if found is None:
        return ""
    body = f"{PREFIX}_{found[1]}_{found[2]}"
    return found[1] if _checksum(body) == found[3] else ""


def name_of(text: str) -> str:
    """Raises CallerError for what no key may be called."""
    name = text.strip()
    if not 0 < len(name) <= MOST_NAME or _CONTROL.search(name):
        raise CallerError(f"a key's name has 1 to {MOST_NAME} characters, in one line")
    return name


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def scopes_of(names: Iterable[str]) -> frozenset[Scope]:
    """Raises CallerError, naming those that there are, for one that there is not."""
    try:
        return frozenset(map(Scope, names))
    except ValueError as problem:
        raise CallerError(f"{problem}; there are {', '.join(Scope)}") from None


def known_scopes(names: Iterable[str]) -> frozenset[Scope]:
    """Those of a kept key that this version knows: a later one, which was taken back, may have made it."""
    return frozenset(map(Scope, set(Scope).intersection(names)))


def _random(count: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(count))


def _checksum(body: str) -> str:
    number, letters = zlib.crc32(body.encode()), ""
    for _ in range(_CHECKSUM):
        number, rest = divmod(number, len(_LETTERS))
        letters = _LETTERS[rest] + letters
    return letters
