"""What `sipserver doctor` looks at when tenants have endpoints of webhooks: can they be told, and what waits for them.

Owns the same kind of judgement as `checks`. Sends no event and no request: it connects, looks at the certificate, and
hangs up. No finding is a problem: calls do not need webhooks.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sipserver.cli.checks import Finding, ok, warning
from sipserver.errors import CallerError, SettingsError
from sipserver.settings import Settings
from sipserver.store.database import UNAVAILABLE, brief, opened_to_read
from sipserver.store.webhook_history import Kept, WebhookHistory
from sipserver.store.webhook_rows import EndpointRow, EndpointRows
from sipserver.webhooks import signing
from sipserver.webhooks.reach import Reached, reach
from sipserver.webhooks.targets import Forbidden, Targets

AT_ONCE = 16
PROBE_S = 5.0
MOST = 200
"""Endpoints that are looked at; a server with more of them has a monitoring of its own."""
SOON = timedelta(days=14)
CLOCKS_DIFFER = timedelta(seconds=5)
WAITS = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class _Seen:
    endpoint: EndpointRow
    reached: Reached | Exception
    kept: Kept


def webhooks(settings: Settings, trust: ssl.SSLContext | None = None) -> list[Finding]:
    """Nothing where there are no endpoints. trust: whose certificates are believed, if not as the machine has it."""
    try:
        return asyncio.run(_webhooks(settings, trust))
    except SettingsError:  # no database yet, or one that other checks and the start speak of
        return []
    except UNAVAILABLE as wrong:
        return [warning("webhooks", f"the endpoints cannot be read: {brief(wrong)}", "is the database well?")]


async def _webhooks(settings: Settings, trust: ssl.SSLContext | None) -> list[Finding]:
    async with opened_to_read(settings.store) as database:
        endpoints = await EndpointRows(database).list()
        if not endpoints:
            return []
        kept = await WebhookHistory(database).kept()
        found = list(_clock(await database.clock_ahead()))
    targets, room = Targets(allow_private=settings.webhooks.allow_private), asyncio.Semaphore(AT_ONCE)

    async def look(endpoint: EndpointRow) -> _Seen:
        async with room:
            reached: Reached | Exception
            try:
                reached = await reach(endpoint.url, targets, within_s=PROBE_S, trust=trust)
            except (CallerError, OSError) as wrong:
                reached = wrong
        return _Seen(endpoint, reached, kept.get(endpoint.id, Kept()))

    seen = await asyncio.gather(*(look(endpoint) for endpoint in endpoints[:MOST]))
    now = datetime.now(UTC)
    for each in seen:
        told = list(_endpoint(each, now))
        found += told or [ok(_name(each.endpoint), f"{each.endpoint.url}: reachable, {each.kept.waiting} waiting")]
    if len(endpoints) > MOST:
        found.append(ok("webhooks", f"{len(endpoints)} endpoints, of which {MOST} were looked at"))
    return found


def _endpoint(seen: _Seen, now: datetime) -> Iterator[Finding]:
    endpoint, subject = seen.endpoint, _name(seen.endpoint)
    if endpoint.disabled_at is not None:
        todo = "enable it when its server is well, then replay its dead letters (docs/webhooks.md)"
        yield warning(subject, f"disabled: {endpoint.disabled_reason}", todo)
    else:
        yield from _way(subject, endpoint, seen.reached, now)
    if not signing.usable(endpoint.secret):
        yield warning(subject, "has no secret that signs", f"POST /api/v1/webhooks/{endpoint.id}/rotate")
    if endpoint.held_since is not None:
        what = f"held since {_moment(endpoint.held_since)}: {endpoint.failures} attempts in a row found it away"
        yield warning(subject, what, "its tenant's server must answer 2xx; a test event that it answers ends this")
    yield from _queue(subject, endpoint, seen.kept, now)


def _way(subject: str, endpoint: EndpointRow, reached: Reached | Exception, now: datetime) -> Iterator[Finding]:
    url = endpoint.url
    match reached:
        case CallerError() | Forbidden():
            todo = "change its URL, or set webhooks.allow_private where tenants are trusted"
            yield warning(subject, f"{url}: {reached}", todo)
        case ssl.SSLCertVerificationError():
            todo = "its server needs a certificate for that name that this machine's authorities have signed"
            yield warning(subject, f"{url}: {reached.verify_message}", todo)
        case ssl.SSLError():
            yield warning(subject, f"{url}: no TLS ({reached.reason})", "its server must speak TLS at that port")
        case TimeoutError():
            yield warning(subject, f"{url}: no connection within {PROBE_S:g} s", "see firewalls, here and there")
        case Exception():
            yield warning(subject, f"{url}: {brief(reached)}", "see its name in the DNS and whether its server runs")
        case Reached(certificate_until=until) if until is not None and until - now < SOON:
            yield warning(subject, f"{url}: its certificate ends {_moment(until)}", "its tenant should renew it")
        case _:
            pass


def _queue(subject: str, endpoint: EndpointRow, kept: Kept, now: datetime) -> Iterator[Finding]:
    oldest = kept.oldest
    if oldest is not None and now - oldest > WAITS:
        what = f"{kept.waiting} messages wait, the oldest since {_moment(oldest)}"
        yield warning(subject, what, f"see GET /api/v1/webhooks/{endpoint.id}/deliveries for what its server answers")
    if kept.dead:
        todo = f"POST /api/v1/webhooks/{endpoint.id}/replay sends them again"
        yield warning(subject, f"{kept.dead} dead letters", todo)
    if endpoint.dropped:
        what = f"{endpoint.dropped} messages did not fit into its queue since it was made"
        yield warning(subject, what, "its server is too slow or was away for long; webhooks.queue is the bound")


def _clock(ahead: timedelta | None) -> Iterator[Finding]:
    """Receivers refuse signatures that are five minutes off, and processes hold messages by the time of day."""
    if ahead is not None and abs(ahead) > CLOCKS_DIFFER:
        what = f"this clock is {ahead.total_seconds():+.0f} s off the database server's"
        yield warning("webhooks", what, "one of the two is wrong: use NTP on both (timedatectl)")


def _name(endpoint: EndpointRow) -> str:
    return f"webhook {endpoint.tenant}/{endpoint.id}"


def _moment(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M UTC")
