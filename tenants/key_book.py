"""The keys of all tenants as a process knows them: made, recognised, revoked.

Owns how long a process believes what it has read: a key that is revoked elsewhere is refused here KNOWN_S later at the
latest. Refuses to know tables and requests.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from sipserver import tenant_name
from sipserver.errors import CallerError, Conflict, NotAllowed, NotFound
from sipserver.store.keys import KeyRow, KeyRows
from sipserver.tenants import keys
from sipserver.tenants.keys import ApiKey, Scope, known_scopes

KNOWN_S = 2.0
MOST_KNOWN = 10_000
"""Ids that are remembered, those that do not exist included; beyond it the one that was read first is read again."""
MOST_GOOD = 500
"""Keys of a tenant that are good, beyond which keys make no more."""
USED_EVERY_S = 60.0
"""How exact `used_at` is."""


class Asker(Protocol):
    """Who makes keys by REST: as `tenants.principal.Principal`."""

    @property
    def tenant(self) -> str: ...
    @property
    def scopes(self) -> frozenset[Scope]: ...
    @property
    def expires_at(self) -> datetime | None: ...


class KeyBook:
    """Loop thread. Raises what the database raises. clock: now, aware."""

    def __init__(self, rows: KeyRows, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._rows, self._clock = rows, clock
        self._known: OrderedDict[str, tuple[datetime, ApiKey | None]] = OrderedDict()

    async def create(
        self, tenant: str, name: str, scopes: frozenset[Scope], *, lives: timedelta | None = None
    ) -> tuple[ApiKey, str]:
        """The key as it is known from now on, and its text, which is never to be had again. Raises CallerError for a
        tenant that cannot be called so.
        """
        now = self._clock()
        tenant_name.checked(tenant)
        row, text = _new(tenant, name, scopes, now, None if lives is None else now + lives)
        await self._rows.add(row)
        return _key(row), text

    async def issue(
        self, asker: Asker, name: str, scopes: frozenset[Scope], expires_at: datetime | None = None
    ) -> tuple[ApiKey, str]:
        """A key that somebody makes, which is worth no more than they are: neither in scopes nor in time. Raises
        NotAllowed, CallerError (it would be over), Conflict (the tenant has too many)."""
        now = self._clock()
        _within(asker, scopes)
        ends = asker.expires_at if expires_at is None else expires_at
        if asker.expires_at is not None and ends is not None and ends > asker.expires_at:
            raise NotAllowed("a key cannot make one that lives longer than itself")
        if ends is not None and ends <= now:
            raise CallerError("`expires_at` is over already")
        if sum(1 for key in await self.list(asker.tenant) if key.is_good(now)) >= MOST_GOOD:
            raise Conflict(f"the tenant has {MOST_GOOD} keys that are good: delete some")
        row, text = _new(asker.tenant, name, scopes, now, ends)
        await self._rows.add(row)
        return _key(row), text

    async def rotate(self, asker: Asker, key_id: str, grace: timedelta) -> tuple[ApiKey, str]:
        """A new key in the place of one, which is good for the grace still. Raises NotFound, NotAllowed (that one may
        do more than the asker, or lives longer), Conflict (it is over)."""
        now, old = self._clock(), await self.get(key_id, tenant=asker.tenant)
        _within(asker, old.scopes)
        if not old.is_good(now):
            raise Conflict(f"the key {key_id} is over")
        if asker.expires_at is not None and (old.expires_at is None or old.expires_at > asker.expires_at):
            raise NotAllowed("a key cannot make one that lives longer than itself")
        row, text = _new(old.tenant, old.name, old.scopes, now, old.expires_at)
        if not await self._rows.replace(key_id, now + grace, row):
            raise Conflict(f"the key {key_id} is over")
        self._known.pop(key_id, None)
        return _key(row), text

    async def get(self, key_id: str, *, tenant: str | None = None) -> ApiKey:
        """Raises NotFound, also for a key of another tenant."""
        row = await self._rows.get(key_id)
        if row is None or tenant not in (None, row.tenant):
            raise NotFound("there is no such key")
        return _key(row)

    async def recognise(self, text: str) -> ApiKey | None:
        """Whose key this is; None for one that is unknown, revoked or over."""
        key_id = keys.id_of(text)
        if not key_id:
            return None
        now = self._clock()
        read_at, key = self._known.get(key_id, (None, None))
        if read_at is None or (now - read_at).total_seconds() >= KNOWN_S:
            key = await self._read(key_id, now)
        if key is None or not key.is_of(text) or not key.is_good(now):
            return None
        if key.used_at is None or (now - key.used_at).total_seconds() >= USED_EVERY_S:
            await self._rows.used(key.id, now)
            self._known.pop(key.id, None)
        return key

    async def list(self, tenant: str | None = None) -> Sequence[ApiKey]:
        return [_key(row) for row in await self._rows.list(tenant)]

    async def revoke(self, key_id: str, *, tenant: str | None = None) -> ApiKey:
        """At once here, within KNOWN_S elsewhere. Raises NotFound, also for a key of another tenant."""
        key = await self.get(key_id, tenant=tenant)
        await self._rows.revoke(key_id, self._clock())
        self._known.pop(key_id, None)
        return key

    async def _read(self, key_id: str, now: datetime) -> ApiKey | None:
        row = await self._rows.get(key_id)
        key = None if row is None else _key(row)
        self._known.pop(key_id, None)
        self._known[key_id] = (now, key)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return key


def _new(
    tenant: str, name: str, scopes: frozenset[Scope], now: datetime, expires_at: datetime | None
) -> tuple[KeyRow, str]:
    made = keys.new_key()
    row = KeyRow(made.id, tenant, name, sorted(scopes), made.digest, created_at=now, expires_at=expires_at)
    return row, made.text


def _within(asker: Asker, scopes: frozenset[Scope]) -> None:
    if more := scopes - asker.scopes:
        raise NotAllowed(f"you do not have {', '.join(sorted(more))} yourself")


def _key(row: KeyRow) -> ApiKey:
    return ApiKey(
        row.id,
        row.tenant,
        row.name,
        known_scopes(row.scopes),
        row.digest,
        row.created_at,
        row.expires_at,
        row.revoked_at,
        row.used_at,
    )
