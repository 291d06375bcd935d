"""The endpoints of all tenants as a process knows them: made, changed, disabled, and who wants to hear what.

Owns what a good endpoint is, its secrets' rotation, and how long a process believes what it has read: an endpoint that
is made or disabled elsewhere is heeded here KNOWN_S later at the latest. Refuses to deliver.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sipserver.errors import CallerError, NotFound, TooMany
from sipserver.events import patterns
from sipserver.store.webhook_queue import WebhookQueue
from sipserver.store.webhook_rows import EndpointRow, EndpointRows
from sipserver.webhooks import signing
from sipserver.webhooks.notices import wanted
from sipserver.webhooks.targets import Targets

KNOWN_S = 2.0
BOTH_SIGN_FOR = timedelta(hours=24)
"""How long the secret before signs, too, once there is a new one."""
MOST = 20
"""Endpoints of a tenant."""
MOST_KINDS = 32
OTHER_KINDS = ("usage.metered", "webhook.test")
"""Told by webhooks alone; they are no events."""
LONGEST_REASON = 256
NOT_HELD = {"failures": 0, "held_since": None, "held_until": None}
_KIND = re.compile(r"[a-z0-9_.*?\[\]!-]{1,64}")


async def _nobody() -> None:
    pass


class Endpoints:
    """Loop thread. Raises what the database raises. tenant: where it is given, endpoints of others are not found.
    clock: now, aware. changed: is awaited when an endpoint was made, changed or deleted.
    """

    def __init__(
        self,
        rows: EndpointRows,
        queue: WebhookQueue,
        targets: Targets,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        changed: Callable[[], Awaitable[None]] = _nobody,
    ) -> None:
        self._rows, self._queue, self._targets, self._clock, self._told = rows, queue, targets, clock, changed
        self._known: dict[str, list[EndpointRow]] = {}
        self._read_at: datetime | None = None

    async def create(self, tenant: str, url: str, kinds: Sequence[str] = ()) -> EndpointRow:
        """With its secret, which can be read again. Raises CallerError for a URL or a pattern that will not do."""
        row = EndpointRow(
            id="we_" + secrets.token_hex(12),
            tenant=tenant,
            url=self._url(url),
            kinds=_kinds(kinds),
            secret=signing.new_secret(),
            created_at=self._clock(),
        )
        if len(await self._rows.list(tenant)) >= MOST:
            raise TooMany(f"a tenant may have {MOST} endpoints")
        await self._rows.add(row)
        await self._changed()
        return row

    async def get(self, endpoint_id: str, *, tenant: str | None = None) -> EndpointRow:
        """Raises NotFound."""
        row = await self._rows.get(endpoint_id)
        if row is None or tenant not in (None, row.tenant):
            raise NotFound(f"there is no endpoint {endpoint_id}")
        return row

    async def list(self, tenant: str | None = None) -> Sequence[EndpointRow]:
        return await self._rows.list(tenant)

    async def change(
        self, endpoint_id: str, *, tenant: str | None = None, url: str | None = None, kinds: Sequence[str] | None = None
    ) -> EndpointRow:
        """What waits goes to the new URL, at once; new kinds count for what is published from now on."""
        changes: dict[str, Any] = {}
        if url is not None:
            changes |= {"url": self._url(url), **NOT_HELD}
        if kinds is not None:
            changes["kinds"] = _kinds(kinds)
        row = await self._change(endpoint_id, tenant, changes)
        if url is not None:
            await self._queue.hurry(endpoint_id, self._clock())
        return row

    async def enable(self, endpoint_id: str, *, tenant: str | None = None) -> EndpointRow:
        """What became a dead letter meanwhile stays one until it is replayed. What waits is due at once."""
        row = await self._change(endpoint_id, tenant, {"disabled_at": None, "disabled_reason": None, **NOT_HELD})
        await self._queue.hurry(endpoint_id, self._clock())
        return row

    async def disable(self, endpoint_id: str, reason: str, *, tenant: str | None = None) -> EndpointRow:
        """What waits becomes dead letters, and nothing is queued for it until it is enabled."""
        now, reason = self._clock(), reason[:LONGEST_REASON]
        row = await self._change(endpoint_id, tenant, {"disabled_at": now, "disabled_reason": reason})
        await self._queue.park(endpoint_id, now, f"disabled: {reason}"[:LONGEST_REASON])
        return row

    async def rotate(self, endpoint_id: str, *, tenant: str | None = None) -> EndpointRow:
        """A new secret; the old one signs beside it for BOTH_SIGN_FOR. One that is older still signs no more."""
        row = await self.get(endpoint_id, tenant=tenant)
        changes = {
            "secret": signing.new_secret(),
            "secret_before": row.secret,
            "before_until": self._clock() + BOTH_SIGN_FOR,
        }
        return await self._change(endpoint_id, tenant, changes)

    async def delete(self, endpoint_id: str, *, tenant: str | None = None) -> None:
        """With its messages and attempts. Raises NotFound."""
        await self.get(endpoint_id, tenant=tenant)
        await self._rows.delete(endpoint_id)
        await self._changed()

    async def interested(self, tenant: str, kind: str) -> Sequence[EndpointRow]:
        """Enabled endpoints that want such events. Reads all endpoints every KNOWN_S, and nothing in between."""
        now = self._clock()
        if self._read_at is None or not 0 <= (now - self._read_at).total_seconds() < KNOWN_S:
            known: dict[str, list[EndpointRow]] = {}
            for row in await self._rows.list(enabled_only=True):
                known.setdefault(row.tenant, []).append(row)
            self._known, self._read_at = known, now
        return [row for row in self._known.get(tenant, ()) if wanted(kind, row.kinds)]

    def forget(self) -> None:
        """Read again before the next answer of `interested`."""
        self._read_at = None

    async def _change(self, endpoint_id: str, tenant: str | None, changes: dict[str, Any]) -> EndpointRow:
        row = await self.get(endpoint_id, tenant=tenant)
        if changes and not await self._rows.change(endpoint_id, **changes):
            raise NotFound(f"there is no endpoint {endpoint_id}")
        await self._changed()
        return replace(row, **changes)

    async def _changed(self) -> None:
        self.forget()
        await self._told()

    def _url(self, url: str) -> str:
        self._targets.check(url)
        return url


def _kinds(kinds: Sequence[str]) -> list[str]:
    """Of what is asked for. What stands in the database is not asked again: it may be of another version."""
    if len(kinds) > MOST_KINDS:
        raise CallerError(f"an endpoint may have {MOST_KINDS} patterns of kinds")
    for kind in kinds:
        if not _KIND.fullmatch(kind):
            raise CallerError(f"not a kind of event or a pattern of some: {kind[:64]}")
    patterns.check(kinds, OTHER_KINDS)
    return list(kinds)


def signing_secrets(row: EndpointRow, now: datetime) -> Sequence[str]:
    """Those that sign at a moment, the newest first."""
    if row.secret_before and row.before_until and now < row.before_until:
        return (row.secret, row.secret_before)
    return (row.secret,)
