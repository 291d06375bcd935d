"""The `prices:` part of the settings, and what a quantity costs by it. Pure; amounts are decimals, never floats.

Owns which price is that of a quantity, and how it is rounded. Refuses to know where quantities come from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Decimal
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sipserver.store.parts import UNITS

if TYPE_CHECKING:
    from sipserver.store.usage_rows import UsageRow

SMALLEST = Decimal("0.000001")
"""What one call used of one thing costs a multiple of it, rounded half up; sums are exact from there on."""

SIZES: Mapping[str, tuple[str, int]] = {
    "second": ("ms", 1000),
    "minute": ("ms", 60_000),
    "hour": ("ms", 3_600_000),
    "character": ("characters", 1),
    "1000 characters": ("characters", 1000),
    "1000000 characters": ("characters", 1_000_000),
    "token": ("tokens", 1),
    "1000 tokens": ("tokens", 1000),
    "1000000 tokens": ("tokens", 1_000_000),
    "request": ("requests", 1),
    "1000 requests": ("requests", 1000),
    "MB": ("bytes", 1_000_000),
    "GB": ("bytes", 1_000_000_000),
}
"""What a price is per: the unit that is counted, and how many of it."""


class Price(BaseModel):
    """The price of what is counted in the unit of `per` and matches part, engine (or trunk), vendor and model, which
    may have `*` in them. tenant: only this one's; empty: everybody's. rounding: `60/60` bills whole minutes, `30/6` the
    first 30 seconds and then every 6, `1/1` every second; empty: exactly. since, until: days on which calls began, in
    UTC; until is not within.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    part: str
    price: Decimal = Field(ge=0, max_digits=18, decimal_places=12, allow_inf_nan=False)
    per: str
    engine: str = "*"
    vendor: str = "*"
    model: str = "*"
    tenant: str = ""
    rounding: str = Field(default="", pattern=r"^$|^[0-9]{1,4}/[1-9][0-9]{0,3}$")
    since: date | None = Field(default=None, alias="from")
    until: date | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        parts = [part for part in UNITS if fnmatchcase(part, self.part)]
        if not parts:
            raise ValueError(f"there is no part `{self.part}`: there are {', '.join(UNITS)}")
        if self.per not in SIZES:
            raise ValueError(f"`per` is one of {', '.join(SIZES)}")
        if all(UNITS[part] != SIZES[self.per][0] for part in parts):
            raise ValueError(f"{', '.join(parts)}: counted in {UNITS[parts[0]]}, a price per {self.per} does not fit")
        if self.rounding and SIZES[self.per][0] != "ms":
            raise ValueError("only time is rounded, such as calls and legs")
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise ValueError("`until` is after `from`")
        return self

    def is_of(self, row: UsageRow, day: date) -> bool:
        patterns = (
            (self.part, row.part),
            (self.engine, row.engine),
            (self.vendor, row.vendor),
            (self.model, row.model),
        )
        return (
            self.tenant in ("", row.tenant)
            and UNITS[row.part] == SIZES[self.per][0]
            and (self.since is None or self.since <= day)
            and (self.until is None or day < self.until)
            and all(fnmatchcase(value, pattern) for pattern, value in patterns)
        )

    @property
    def narrowness(self) -> tuple[int, ...]:
        """The narrowest price counts: a tenant's own, then the one that names most, then the youngest."""
        exact = sum(not re.search(r"[*?\[]", text) for text in (self.part, self.engine, self.vendor, self.model))
        return bool(self.tenant), exact, (self.since or date.min).toordinal()

    def billed(self, quantity: int) -> int:
        """Of a time in ms what is billed; of all else the quantity itself."""
        if not self.rounding or not quantity:
            return quantity
        first_ms, step_ms = (int(text) * 1000 for text in self.rounding.split("/"))
        return first_ms + max(0, -(-(quantity - first_ms) // step_ms)) * step_ms

    def cost(self, billed: int) -> Decimal:
        return (self.price * billed / SIZES[self.per][1]).quantize(SMALLEST, ROUND_HALF_UP)


class PriceSettings(BaseModel):
    """currency: ISO 4217; for all prices. list: the narrowest that fits counts: a tenant's own before everybody's, then
    the one that names most of part, engine, vendor and model, then the one with the latest `from`, then the first.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    currency: str = Field(default="EUR", pattern=r"^[A-Z]{3}$")
    list: tuple[Price, ...] = ()


@dataclass(frozen=True, slots=True)
class Rated:
    """What a call used of one thing, and its cost. price: None: there is none for it, and it costs nothing."""

    row: UsageRow
    billed: int
    price: Price | None
    cost: Decimal


class Rating:
    """Finds prices, and remembers which it found. One thread."""

    MOST = 10_000

    def __init__(self, prices: PriceSettings) -> None:
        self.currency = prices.currency
        self._prices = prices.list
        self._found: dict[tuple[object, ...], Price | None] = {}

    def rate(self, row: UsageRow) -> Rated:
        price = self._price(row)
        if price is None:
            return Rated(row, row.quantity, None, Decimal(0).quantize(SMALLEST))
        billed = price.billed(row.quantity)
        return Rated(row, billed, price, price.cost(billed))

    def _price(self, row: UsageRow) -> Price | None:
        day = day_of(row.at)
        key = (row.tenant, row.part, row.engine, row.vendor, row.model, day)
        if key not in self._found:
            if len(self._found) >= self.MOST:
                self._found.clear()
            fitting = [price for price in self._prices if price.is_of(row, day)]
            self._found[key] = max(fitting, key=lambda price: price.narrowness, default=None)
        return self._found[key]


def day_of(moment: datetime) -> date:
    return moment.astimezone(UTC).date()
