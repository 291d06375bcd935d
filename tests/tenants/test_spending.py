"""What tenants have spent and keep is told to whoever counts, from what a database of either kind has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from sipserver.bus.contract import Draw
from sipserver.bus.memory import MemoryBus
from sipserver.store.database import Database
from sipserver.store.running import Running
from sipserver.store.schema import calls, events, stored, usage
from sipserver.store.settings import StoreSettings
from sipserver.store.usage_rows import UsageRows
from sipserver.tenants.allowances import (
    MONTH_S,
    Allowances,
    Told,
    micro,
    minutes_scope,
    spend_scope,
    storage_scope,
)
from sipserver.tenants.nearness import Nearness
from sipserver.tenants.prices import PriceSettings, Rating
from sipserver.tenants.settings import TenantLimits
from sipserver.tenants.spending import Spending
from tests.store.conftest import store_settings

__all__ = ["store_settings"]

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
PRICES = PriceSettings.model_validate(
    {
        "list": [
            {"part": "call.*", "price": "0.60", "per": "minute"},
            {"part": "call.*", "engine": "dear", "price": "6", "per": "minute", "rounding": "60/60"},
            {"part": "leg", "price": "1.20", "per": "minute"},
            {"part": "stt", "price": "0.06", "per": "minute"},
            {"part": "tts", "price": "10", "per": "1000000 characters"},
            {"part": "llm.*", "price": "100", "per": "1000000 tokens"},
            {"part": "llm.untold", "price": "5", "per": "1000 requests"},
        ]
    }
)


class Office:
    """A database with calls, and who looks at it."""

    def __init__(self, database: Database) -> None:
        self.database, self.bus = database, MemoryBus(node="one", run="r1")
        self.running = Running(database)
        self.told: list[tuple[str, str, str]] = []

    async def look(self, now: datetime = NOW, **limits: Any) -> None:
        nearness = Nearness(self.bus.meters, Draw, self.tell)
        tenants = {"acme": TenantLimits(**limits), "free": TenantLimits()}
        rows = UsageRows(self.database)
        rating = Rating(PRICES)
        await Spending(rows, self.running, rating, tenants, self.bus.meters, nearness, now=now.timestamp).look()

    async def tell(self, tenant: str, told: Told) -> None:
        self.told.append((tenant, told.limit, told.used))

    async def meter(self, scope: str) -> int:
        return int((await self.bus.meters.draw({scope: Draw(0, 0, MONTH_S, always=True)})).used[scope])

    async def call(self, name: str, ago: timedelta, *, tenant: str = "acme", **facts: Any) -> None:
        row = {
            **{"id": name, "tenant": tenant, "node": "n", "run": "r", "direction": "inbound", "state": "answered"},
            **{"from_uri": "sip:1@x", "to_uri": "sip:2@x", "source": "s", "sip_call_id": name, "started_at": NOW - ago},
            **{"turns": 0, "digits": 0, "faults": 0, "events": 0, "events_dropped": 0},
            **facts,
        }
        async with self.database.engine.begin() as connection:
            await connection.execute(sa.insert(calls).values(**row))

    async def event(self, call_id: str, seq: int, at_ms: int, kind: str, **fields: Any) -> None:
        async with self.database.engine.begin() as connection:
            row = {"call_id": call_id, "seq": seq, "at_ms": at_ms, "kind": kind, "fields": fields}
            await connection.execute(sa.insert(events).values(**row))
            await connection.execute(sa.update(calls).where(calls.c.id == call_id).values(events=seq + 1))

    async def used(self, call_id: str, ago: timedelta, part: str, quantity: int, *, tenant: str = "acme") -> None:
        row = {
            **{"call_id": call_id, "tenant": tenant, "at": NOW - ago, "part": part, "quantity": quantity},
            **{"leg": "", "engine": "", "vendor": "", "model": "", "unit": "ms", "metered": 0, "metering": 0},
        }
        async with self.database.engine.begin() as connection:
            await connection.execute(sa.insert(usage).values(**row))

    async def keeps(self, call_id: str, size: int, tenant: str = "acme") -> None:
        async with self.database.engine.begin() as connection:
            row = {"call_id": call_id, "kind": "recording", "tenant": tenant, "bytes": size}
            await connection.execute(sa.insert(stored).values(**row))

    async def erase(self, call_id: str) -> None:
        async with self.database.engine.begin() as connection:
            await connection.execute(sa.delete(calls).where(calls.c.id == call_id))


@pytest.fixture
async def office(store_settings: StoreSettings) -> AsyncIterator[Office]:
    database = Database(store_settings)
    await database.open()
    yield Office(database)
    await database.close()


DAY = spend_scope("spend_a_day", "acme", NOW.timestamp())
MONTH = spend_scope("spend_a_month", "acme", NOW.timestamp())


async def test_what_calls_that_are_over_cost_by_day_and_month(office: Office) -> None:
    await office.used("a", timedelta(hours=1), "call.inbound", 90_000)
    await office.used("b", timedelta(days=2), "call.inbound", 60_000)
    await office.used("c", timedelta(days=40), "call.inbound", 60_000)
    await office.used("d", timedelta(hours=1), "call.inbound", 60_000, tenant="zenith")
    await office.look(spend_a_day=5, spend_a_month=50, minutes_a_day=10)
    assert await office.meter(DAY) == micro(Decimal("0.90"))
    assert await office.meter(MONTH) == micro(Decimal("1.50"))
    assert await office.meter(minutes_scope("acme", NOW.timestamp())) == 2


async def test_what_is_kept_is_told_as_it_rises_and_falls(office: Office) -> None:
    for name, size in (("a", 500), ("b", 350)):
        await office.call(name, timedelta(hours=1), ended_at=NOW)
        await office.keeps(name, size)
    await office.call("z", timedelta(hours=1), tenant="zenith", ended_at=NOW)
    await office.keeps("z", 9999, "zenith")
    await office.look(storage_bytes=1000)
    assert await office.meter(storage_scope("acme")) == 850
    await office.look(storage_bytes=1000)
    assert office.told == [("acme", "storage_bytes", "850")]
    await office.erase("a")
    await office.look(storage_bytes=1000)
    assert await office.meter(storage_scope("acme")) == 350
    await office.call("c", timedelta(hours=1), ended_at=NOW)
    await office.keeps("c", 600)
    await office.look(storage_bytes=1000)
    assert office.told[1:] == [("acme", "storage_bytes", "950")]


async def test_calls_that_run_cost_what_they_have_used_so_far(office: Office) -> None:
    minute = timedelta(minutes=1)
    await office.used("over", timedelta(hours=1), "call.inbound", 60_000)
    await office.call("talks", 5 * minute, answered_at=NOW - 3 * minute)
    await office.event("talks", 0, 0, "call.started", direction="inbound", trunk="cheap")
    await office.event("talks", 1, 180_000, "party.dialed", party="party-1", to="sip:x@y", trunk="cheap")
    await office.event("talks", 2, 240_000, "leg.answered", leg="party-1")
    await office.call("dear", 2 * minute, answered_at=NOW - timedelta(seconds=1), direction="outbound")
    await office.event("dear", 0, 0, "call.started", direction="outbound", trunk="")
    await office.event("dear", 1, 60_000, "call.carried", trunk="dear")
    await office.call("rings", minute)
    await office.call("theirs", minute, answered_at=NOW - minute, tenant="zenith")
    await office.call("yesterday", timedelta(hours=13), answered_at=NOW - minute)
    await office.call("forgotten", timedelta(days=3), answered_at=NOW - timedelta(days=3))
    await office.look(spend_a_day=50, spend_a_month=50)
    talks, leg, dear, over = Decimal("1.80"), Decimal("1.20"), Decimal(6), Decimal("0.60")
    assert await office.meter(DAY) == micro(over + talks + leg + dear)
    assert await office.meter(MONTH) == micro(over + talks + leg + dear + Decimal("0.60"))
    await office.erase("talks")
    await office.look(spend_a_day=50, spend_a_month=50)
    assert await office.meter(DAY) == micro(over + dear), "what it comes to is set right"


async def test_what_calls_that_run_have_used_of_speech_and_models_costs_now(office: Office) -> None:
    await office.call("talks", timedelta(minutes=5), answered_at=NOW)
    spend: dict[str, Any] = {"spend_a_day": 50, "spend_a_month": 50}
    tokens = {"outcome": "complete", "tokens_in": 9000, "tokens_out": 1000, "engine": "mind"}
    await office.event("talks", 0, 100, "usage.engine", part="stt", quantity=120_000, engine="ears")
    await office.event("talks", 1, 200, "usage.engine", part="tts", quantity=4000, engine="voice")
    await office.event("talks", 2, 300, "llm.span", **tokens)
    await office.look(**spend)
    turn, stt, tts = Decimal(1), Decimal("0.12"), Decimal("0.04")
    assert await office.meter(DAY) == micro(stt + tts + turn)
    await office.look(**spend)
    assert await office.meter(DAY) == micro(stt + tts + turn), "nothing counts twice"
    await office.event("talks", 3, 400, "llm.span", **tokens)
    await office.event("talks", 4, 500, "llm.span", outcome="cancelled", engine="mind")
    await office.look(**spend)
    untold = Decimal("0.005")
    assert await office.meter(DAY) == await office.meter(MONTH) == micro(stt + tts + 2 * turn + untold)


async def test_what_a_call_began_before_the_month_costs_is_of_that_month(office: Office) -> None:
    first = datetime(2026, 11, 1, 1, 0, tzinfo=UTC)
    await office.call("night", NOW - first + timedelta(hours=2), answered_at=first)
    await office.event("night", 0, 100, "usage.engine", part="tts", quantity=4000, engine="voice")
    await office.look(first, spend_a_month=50)
    assert await office.meter(spend_scope("spend_a_month", "acme", first.timestamp())) == 0


async def test_recordings_that_run_are_kept_already(office: Office) -> None:
    await office.call("over", timedelta(hours=1), ended_at=NOW)
    await office.keeps("over", 500)
    await office.call("talks", timedelta(seconds=20), answered_at=NOW, recording_path="/r/1.wav")
    await office.event("talks", 0, 10_000, "recording.started", path="/r/1.wav", channels=2)
    await office.look(storage_bytes=1_000_000)
    assert await office.meter(storage_scope("acme")) == 500 + 640_000 + 44
    await office.look(NOW + timedelta(seconds=3), storage_bytes=1_000_000)
    assert await office.meter(storage_scope("acme")) == 500 + 832_000 + 44
    assert office.told == [("acme", "storage_bytes", str(500 + 832_000 + 44))]


async def test_tokens_of_a_call_that_runs_end_it_and_refuse_the_next(office: Office) -> None:
    await office.call("talks", timedelta(minutes=5), answered_at=NOW)
    tenants = {"acme": TenantLimits(spend_a_day=Decimal(1), on_exceeded="hangup")}
    bus = office.bus
    allowances = Allowances(tenants, bus.meters, bus.once.first, Draw, now=NOW.timestamp)
    await office.look(spend_a_day=1)
    assert (await allowances.minute("acme")).reached is None
    tokens = {"outcome": "complete", "tokens_in": 9000, "tokens_out": 1000, "engine": "mind"}
    await office.event("talks", 0, 300, "llm.span", **tokens)
    await office.look(spend_a_day=1)
    for allowed in (await allowances.minute("acme"), await allowances.call("acme")):
        assert allowed.reached is not None
        assert (allowed.reached.limit, allowed.reached.code, allowed.reached.hang_up) == ("spend_a_day", 403, True)
