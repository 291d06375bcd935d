"""What the doctor says about endpoints of webhooks: over real sockets and a database of either kind."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sipserver.cli import webhook_checks
from sipserver.cli.checks import Finding, Verdict
from sipserver.settings import Settings
from sipserver.store.database import Database
from sipserver.store.settings import StoreSettings
from sipserver.store.webhook_rows import EndpointRow, EndpointRows
from sipserver.webhooks.outgoing import Outgoing
from sipserver.webhooks.settings import WebhookSettings
from tests.servers.certificate import Certificate
from tests.store.conftest import sqlite_settings, store_settings
from tests.webhooks.rig import Clock, Receivers, away, event, status

__all__ = ["sqlite_settings", "store_settings"]


@dataclass
class Bench:
    """A database with endpoints of one tenant, and what the doctor says of them."""

    settings: Settings
    database: Database
    hooks: Outgoing
    clock: Clock
    receivers: Receivers
    trust: list[ssl.SSLContext] = field(default_factory=list)

    async def endpoint(self, url: str, **columns: object) -> EndpointRow:
        self.clock.passes(1)  # they are told in the order in which they were made
        made = await self.hooks.endpoints.create("acme", url)
        if columns:
            await EndpointRows(self.database).change(made.id, **columns)
        return made

    async def findings(self, *, allow_private: bool = True) -> list[Finding]:
        hooks = WebhookSettings(allow_private=allow_private)
        settings = self.settings.model_copy(update={"webhooks": hooks})
        return await asyncio.to_thread(webhook_checks.webhooks, settings, *self.trust)


@pytest.fixture
async def bench(store_settings: StoreSettings) -> AsyncIterator[Bench]:
    database = Database(store_settings, connections=4)
    await database.open()
    clock, receivers = Clock(datetime.now(UTC)), Receivers()
    hooks = Outgoing(database, WebhookSettings(allow_private=True), post=receivers, clock=clock, chance=lambda: 0.5)
    settings = Settings.model_validate({"store": store_settings.model_dump()})
    yield Bench(settings, database, hooks, clock, receivers)
    await hooks.stop()
    await database.close()


@asynccontextmanager
async def listening(secure: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A port, and what was sent to it."""
    came: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(await reader.read())
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0, ssl=secure)
    async with server:
        yield server.sockets[0].getsockname()[1], came


def serving(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    return context


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


async def test_nothing_is_said_where_there_are_no_endpoints(bench: Bench) -> None:
    assert await bench.findings() == []


def test_nothing_is_said_where_there_is_no_database_yet(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/none.db"
    assert webhook_checks.webhooks(Settings.model_validate({"store": {"url": url}})) == []
    assert list(tmp_path.iterdir()) == []


async def test_an_endpoint_that_is_well_is_told_nothing(bench: Bench, tmp_path: Path) -> None:
    certificate = Certificate.made(tmp_path / "tls", days=90)
    bench.trust.append(ssl.create_default_context(cafile=str(certificate.certificate)))
    async with listening(serving(certificate)) as (port, came):
        made = await bench.endpoint(f"https://localhost:{port}/in")
        found = only(await bench.findings())
    assert found.verdict is Verdict.OK
    assert found.subject == f"webhook acme/{made.id}"
    assert "reachable, 0 waiting" in found.what
    assert came == [b""]


async def test_a_certificate_that_ends_soon(bench: Bench, tmp_path: Path) -> None:
    certificate = Certificate.made(tmp_path / "tls", days=2)
    bench.trust.append(ssl.create_default_context(cafile=str(certificate.certificate)))
    async with listening(serving(certificate)) as (port, _):
        await bench.endpoint(f"https://localhost:{port}/in")
        found = only(await bench.findings())
    assert found.verdict is Verdict.WARNING
    assert "its certificate ends" in found.what
    assert "renew" in found.todo


@pytest.mark.parametrize("host", ["other", "localhost"])
async def test_a_certificate_of_somebody_else_or_of_an_unknown_authority(
    bench: Bench, tmp_path: Path, host: str
) -> None:
    certificate = Certificate.made(tmp_path / "tls", host)
    if host == "other":
        bench.trust.append(ssl.create_default_context(cafile=str(certificate.certificate)))
    async with listening(serving(certificate)) as (port, came):
        await bench.endpoint(f"https://localhost:{port}/in")
        found = only(await bench.findings())
    assert found.verdict is Verdict.WARNING
    assert ("Hostname mismatch" if host == "other" else "self-signed") in found.what
    assert "certificate" in found.todo
    assert b"".join(came) == b""


async def test_no_tls_at_that_port(bench: Bench) -> None:
    async with listening() as (port, _), asyncio.timeout(20):
        await bench.endpoint(f"https://localhost:{port}/in")
        looking = asyncio.create_task(bench.findings())
        found = only(await looking)
    assert found.verdict is Verdict.WARNING
    assert "no connection" in found.what or "no TLS" in found.what


async def test_names_and_ports_where_nobody_is(bench: Bench) -> None:
    async with listening() as (port, _):
        pass
    await bench.endpoint(f"http://127.0.0.1:{port}/in")
    assert "ConnectionRefusedError" in only(await bench.findings()).what
    await bench.endpoint("https://nobody.invalid/in")
    refused, unknown = await bench.findings()
    assert "nobody.invalid" in unknown.what
    assert "DNS" in unknown.todo
    assert refused.verdict is unknown.verdict is Verdict.WARNING


async def test_where_no_webhook_may_go_any_more(bench: Bench) -> None:
    """The setting was taken back after the endpoint had been made."""
    await bench.endpoint("https://127.0.0.1:9/in")
    await bench.endpoint("https://localhost:9/in")
    by_address, by_name = await bench.findings(allow_private=False)
    assert "may not be sent to 127.0.0.1" in by_address.what
    assert "no address that webhooks may be sent to" in by_name.what
    assert "webhooks.allow_private" in by_address.todo == by_name.todo


@pytest.mark.parametrize(
    ("columns", "what", "todo"),
    [
        ({"secret": "whsec_"}, "no secret", "rotate"),
        ({"secret": "whsec_%%%"}, "no secret", "rotate"),
        ({"dropped": 7}, "7 messages did not fit", "webhooks.queue"),
        (
            {"disabled_at": datetime(2026, 1, 2, tzinfo=UTC), "disabled_reason": "the receiver answered 410 (gone)"},
            "disabled: the receiver answered 410",
            "enable it",
        ),
    ],
)
async def test_what_the_database_knows_of_an_endpoint(
    bench: Bench, columns: dict[str, object], what: str, todo: str
) -> None:
    async with listening() as (port, _):
        await bench.endpoint(f"http://127.0.0.1:{port}/in", **columns)
        found = only(await bench.findings())
    assert found.verdict is Verdict.WARNING
    assert what in found.what
    assert todo in found.todo


async def test_a_hold_what_waits_and_dead_letters(bench: Bench) -> None:
    async with listening() as (port, _):
        made = await bench.endpoint(f"http://127.0.0.1:{port}/in")
        bench.clock.passes(hours=-2)
        bench.receivers.behave = status(410)
        await bench.hooks.publish([event("c0", 0)])
        await bench.hooks.delivery.deliver_due()
        await bench.hooks.endpoints.enable(made.id)
        bench.receivers.behave = away
        await bench.hooks.publish([event(f"c{call}", 1) for call in range(1, 7)])
        await bench.hooks.delivery.deliver_due()
        held, waiting, dead = await bench.findings()
    assert "held since" in held.what
    assert "5 attempts in a row" in held.what or "6 attempts" in held.what
    assert "6 messages wait, the oldest since" in waiting.what
    assert f"/api/v1/webhooks/{made.id}/deliveries" in waiting.todo
    assert dead.what == "1 dead letters"
    assert f"/api/v1/webhooks/{made.id}/replay" in dead.todo


def test_clocks_that_differ() -> None:
    clock = webhook_checks._clock
    assert list(clock(None)) == []
    assert list(clock(timedelta(seconds=3))) == []
    (found,) = clock(timedelta(seconds=-40))
    assert found.verdict is Verdict.WARNING
    assert "-40 s" in found.what
    assert "NTP" in found.todo
