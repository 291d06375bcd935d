"""Which price counts, how time is rounded, and that mistakes are told."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sipserver import settings
from sipserver.errors import SettingsError
from sipserver.store.usage_rows import UsageRow
from sipserver.tenants.prices import SMALLEST, Price, PriceSettings, Rating

AT = datetime(2026, 11, 28, 12, tzinfo=UTC)


def row(part: str = "call.inbound", quantity: int = 61_000, **more: Any) -> UsageRow:
    known: dict[str, Any] = {"leg": "", "engine": "berlin", "vendor": "", "model": "", "unit": "ms", "tenant": "acme"}
    return UsageRow(**{"call_id": "c1", "at": AT, "part": part, "quantity": quantity, **known, **more})


def rating(*prices: dict[str, Any]) -> Rating:
    return Rating(PriceSettings.model_validate({"list": list(prices)}))


CALL: dict[str, Any] = {"part": "call.*", "price": "0.03", "per": "minute"}


@pytest.mark.parametrize(
    ("rounding", "ms", "billed_s"),
    [
        ("60/60", 1, 60),
        ("60/60", 60_000, 60),
        ("60/60", 60_001, 120),
        ("30/6", 1, 30),
        ("30/6", 30_001, 36),
        ("30/6", 42_000, 42),
        ("1/1", 1, 1),
        ("1/1", 1001, 2),
        ("0/60", 1, 60),
        ("60/60", 0, 0),
    ],
)
def test_time_is_rounded_as_telephone_people_do(rounding: str, ms: int, billed_s: int) -> None:
    rated = rating({**CALL, "rounding": rounding}).rate(row(quantity=ms))
    assert rated.billed == billed_s * 1000
    assert rated.cost == (Decimal("0.03") * billed_s / 60).quantize(SMALLEST)


@given(ms=st.integers(0, 10**9), first=st.integers(0, 120), step=st.integers(1, 120))
def test_what_is_billed_is_never_less_and_less_than_a_step_more(ms: int, first: int, step: int) -> None:
    price = Price(part="leg", price=Decimal(1), per="second", rounding=f"{first}/{step}")
    billed = price.billed(ms)
    assert ms <= billed < max(ms + step * 1000, first * 1000 + 1)


def test_the_narrowest_price_counts() -> None:
    found = rating(
        CALL,
        {**CALL, "price": "0.02", "engine": "berlin"},
        {**CALL, "price": "0.01", "engine": "berlin", "part": "call.inbound"},
        {**CALL, "price": "0.05", "tenant": "zenith"},
    )
    assert [found.rate(row(quantity=60_000, **more)).cost for more in ({}, {"tenant": "zenith"})] == [
        Decimal("0.01"),
        Decimal("0.05"),
    ]
    assert found.rate(row("call.outbound", 60_000)).cost == Decimal("0.02")
    assert found.rate(row("call.outbound", 60_000, engine="hamburg")).cost == Decimal("0.03")


def test_a_price_is_that_of_the_day_on_which_the_call_began() -> None:
    found = rating(
        {**CALL, "price": "0.01", "until": "2026-12-01"},
        {**CALL, "price": "0.02", "from": "2026-12-01"},
    )
    late = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC)
    costs = [found.rate(row(quantity=60_000, at=at)).cost for at in (late, datetime(2026, 12, 1, tzinfo=UTC))]
    assert costs == [Decimal("0.01"), Decimal("0.02")]


def test_what_has_no_price_costs_nothing_and_is_shown_as_such() -> None:
    rated = rating().rate(row())
    assert (rated.price, rated.cost, rated.billed) == (None, Decimal(0), 61_000)


def test_tokens_and_characters() -> None:
    found = rating(
        {"part": "llm.in", "vendor": "openai", "model": "gpt-*", "price": "2.50", "per": "1000000 tokens"},
        {"part": "tts", "price": "0.015", "per": "1000 characters"},
        {"part": "recording.size", "price": "0.10", "per": "GB"},
    )
    tokens = row("llm.in", 1234, vendor="openai", model="gpt-4o", unit="tokens")
    assert found.rate(tokens).cost == Decimal("0.003085")
    assert found.rate(row("tts", 7, unit="characters")).cost == Decimal("0.000105")
    assert found.rate(row("recording.size", 5_000_000, unit="bytes")).cost == Decimal("0.0005")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"part": "cal.*"}, "there is no part"),
        ({"per": "moment"}, "`per` is one of"),
        ({"per": "token"}, "counted in ms"),
        ({"part": "tts", "per": "character", "rounding": "1/1"}, "only time is rounded"),
        ({"rounding": "60"}, "pattern"),
        ({"rounding": "60/0"}, "pattern"),
        ({"from": "2026-12-01", "until": "2026-12-01"}, "after"),
        ({"price": "-1"}, "greater than or equal to 0"),
        ({"price": "much"}, "decimal"),
        ({"part": "llm.*"}, "does not fit"),
    ],
)
def test_mistakes_are_told(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        PriceSettings.model_validate({"list": [{**CALL, **wrong}]})


def test_the_settings_name_the_line_of_a_mistake(tmp_path: Path) -> None:
    file = tmp_path / "sipserver.yaml"
    file.write_text("prices:\n  currency: EUR\n  list:\n    - part: call.*\n      price: 0.012\n      per: minut\n")
    with pytest.raises(SettingsError, match="per") as refused:
        settings.load(file)
    assert refused.value.line == 4
    file.write_text(file.read_text().replace("minut", "minute"))
    assert settings.load(file).prices.list[0].price == Decimal("0.012")
