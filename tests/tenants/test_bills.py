"""A bill's totals are what its calls cost, to the last digit, however many there are."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from sipserver.errors import CallerError
from sipserver.store import usage_rows
from sipserver.store.database import Database
from sipserver.store.parts import UNITS
from sipserver.store.schema import usage
from sipserver.store.settings import StoreSettings
from sipserver.store.usage_rows import UsageRows
from sipserver.tenants import bills as forms
from sipserver.tenants.bills import Bills, Month
from sipserver.tenants.prices import PriceSettings, Rating
from tests.store.conftest import store_settings

__all__ = ["store_settings"]

NOVEMBER = Month.of("2026-11")
PRICES = PriceSettings.model_validate(
    {
        "list": [
            {"part": "call.*", "price": "0.0137", "per": "minute", "rounding": "30/6"},
            {"part": "call.*", "price": "0.0111", "per": "minute", "from": "2026-11-15"},
            {"part": "stt", "price": "0.006", "per": "minute"},
            {"part": "llm.*", "price": "2.5", "per": "1000000 tokens"},
            {"part": "tts", "price": "15", "per": "1000000 characters"},
        ]
    }
)


@pytest.fixture
async def database(store_settings: StoreSettings) -> AsyncIterator[Database]:
    opened = Database(store_settings)
    await opened.open()
    yield opened
    await opened.close()


async def fill(database: Database, tenant: str = "acme", calls: int = 300) -> None:
    chance = random.Random(7)
    rows: list[dict[str, Any]] = []
    for number in range(calls):
        at = NOVEMBER.since + timedelta(hours=number * 720 // calls, milliseconds=1 if number else 0)
        for part in ("call.inbound", "stt", "llm.in", "llm.out", "tts", "recording"):
            rows.append(
                {
                    "call_id": f"{tenant}-{number}",
                    "part": part,
                    "leg": "",
                    "engine": chance.choice(["one", "=two"]),
                    "vendor": "",
                    "model": "",
                    "tenant": tenant,
                    "at": at,
                    "quantity": chance.randrange(1, 200_000),
                    "unit": UNITS[part],
                    "metered": 0,
                    "metering": 0,
                }
            )
    async with database.engine.begin() as connection:
        await connection.execute(sa.insert(usage), rows)


def bills(database: Database) -> Bills:
    return Bills(UsageRows(database), Rating(PRICES))


async def test_sums_of_calls_are_totals(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_rows, "PAGE", 7)
    await fill(database)
    await fill(database, "zenith", 20)
    found = bills(database)
    each = [line async for line in found.calls("acme", NOVEMBER.since, NOVEMBER.until)]
    assert len(each) == 300 * 6
    assert len({line.call_id for line in each}) == 300
    month = await found.between("acme", NOVEMBER.since, NOVEMBER.until)
    days = await found.between("acme", NOVEMBER.since, NOVEMBER.until, by="day")
    assert forms.total(each) == forms.total(month) == forms.total(days) > 0
    for part in {line.part for line in each}:
        for quantity in ("quantity", "billed", "cost", "calls"):
            sums = {
                sum(getattr(line, quantity) for line in lines if line.part == part) for lines in (each, month, days)
            }
            assert len(sums) == 1
    told = forms.as_json("acme", NOVEMBER, "EUR", month)
    assert sum(Decimal(line["cost"]) for line in told["lines"]) == Decimal(told["total"])
    table = list(csv.DictReader(io.StringIO(forms.head() + forms.as_rows("acme", NOVEMBER, "EUR", each))))
    assert sum(Decimal(line["cost"]) for line in table) == Decimal(told["total"])
    assert {line["engine"] for line in table} == {"one", "'=two"}


async def test_two_prices_of_a_month_are_two_lines(database: Database) -> None:
    await fill(database)
    month = await bills(database).between("acme", NOVEMBER.since, NOVEMBER.until)
    calls = [line for line in month if (line.part, line.engine) == ("call.inbound", "one")]
    assert sorted(str(line.price.price) for line in calls if line.price) == ["0.0111", "0.0137"]
    unpriced = next(line for line in month if line.part == "recording")
    assert (unpriced.price, unpriced.cost, unpriced.plain()["price"]) == (None, 0, None)


async def test_a_month_ends_where_the_next_begins(database: Database) -> None:
    await fill(database, calls=1)
    october = Month.of("2026-10")
    assert october.until == NOVEMBER.since
    assert await bills(database).between("acme", october.since, october.until) == []
    assert len(await bills(database).between("acme", NOVEMBER.since, NOVEMBER.until)) == 6
    assert await bills(database).between("zenith", NOVEMBER.since, NOVEMBER.until) == []


def test_months() -> None:
    assert Month.of("2026-12").until == datetime(2027, 1, 1, tzinfo=UTC)
    for wrong in ("2026-13", "11-2026", "", "2026-11-01"):
        with pytest.raises(CallerError):
            Month.of(wrong)
