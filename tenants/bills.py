"""What a tenant used and what it costs: of one call, by day or part, of a month for an invoice.

Owns the sums: each is the sum of what single calls cost, exactly. Refuses to know files, requests and terminals.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from sipserver.errors import CallerError
from sipserver.store.usage_rows import UsageRow, UsageRows
from sipserver.tenants.prices import SMALLEST, Price, Rated, Rating, day_of

By = Literal["day", "part"]
NOTHING = Decimal(0).quantize(SMALLEST)
SHOWN = {"ms": ("s", 1000)}
"""How a unit is shown: its name, and how many make one."""

COLUMNS = (
    "tenant",
    "month",
    "call_id",
    "part",
    "engine",
    "vendor",
    "model",
    "calls",
    "quantity",
    "billed",
    "unit",
    "price",
    "per",
    "rounding",
    "cost",
    "currency",
)
"""Of an export as a table."""


@dataclass(slots=True)
class Line:
    """A line of a bill. group: a day, or empty. call_id: of one call; empty: of as many as `calls` says. billed:
    quantity after rounding. In the units of the rows.
    """

    part: str
    unit: str
    engine: str = ""
    vendor: str = ""
    model: str = ""
    price: Price | None = None
    group: str = ""
    call_id: str = ""
    calls: int = 0
    quantity: int = 0
    billed: int = 0
    cost: Decimal = NOTHING

    def plain(self) -> dict[str, Any]:
        """For JSON and tables: amounts as decimal text, time in seconds."""
        unit, size = SHOWN.get(self.unit, (self.unit, 1))
        price = self.price
        return {
            "part": self.part,
            "engine": self.engine,
            "vendor": self.vendor,
            "model": self.model,
            "calls": self.calls,
            "quantity": _amount(self.quantity, size),
            "billed": _amount(self.billed, size),
            "unit": unit,
            "price": None if price is None else f"{price.price:f}",
            "per": "" if price is None else price.per,
            "rounding": "" if price is None else price.rounding,
            "cost": f"{self.cost:f}",
        }


@dataclass(frozen=True, slots=True)
class Month:
    """As text it is `2026-11`. since, until: in UTC; until is not within."""

    text: str
    since: datetime
    until: datetime

    @classmethod
    def of(cls, text: str) -> Month:
        """Raises CallerError."""
        try:
            since = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC)
            following = (since.year + since.month // 12, since.month % 12 + 1)
            until = datetime(*following, 1, tzinfo=UTC)
        except ValueError:
            raise CallerError("a month looks like 2026-11") from None
        return cls(f"{since:%Y-%m}", since, until)


class Bills:
    """Loop thread. Safe to cancel. Raises SQLAlchemy's errors when the database does not answer."""

    def __init__(self, rows: UsageRows, rating: Rating) -> None:
        self._rows, self._rating = rows, rating

    @property
    def currency(self) -> str:
        return self._rating.currency

    async def of_call(self, call_id: str) -> Sequence[Line]:
        """One line each for what the call used, none before it is over. Whose call it is was looked at before."""
        return [line_of(self._rating.rate(row)) for row in await self._rows.of_call(call_id)]

    async def between(self, tenant: str, since: datetime, until: datetime, by: By = "part") -> Sequence[Line]:
        """Sums over the calls that began then, until not within; by day: each day on its own."""
        sums = _Sums()
        async for row in self._rows.between(tenant, since, until):
            sums.add(self._rating.rate(row), day_of(row.at).isoformat() if by == "day" else "")
        return sums.lines()

    async def calls(self, tenant: str, since: datetime, until: datetime) -> AsyncIterator[Line]:
        """Every call's lines, the oldest first."""
        async for row in self._rows.between(tenant, since, until):
            yield line_of(self._rating.rate(row))


def total(lines: Iterable[Line]) -> Decimal:
    return sum((line.cost for line in lines), NOTHING)


def line_of(rated: Rated) -> Line:
    row = rated.row
    return Line(
        row.part,
        row.unit,
        row.engine,
        row.vendor,
        row.model,
        rated.price,
        call_id=row.call_id,
        calls=1,
        quantity=row.quantity,
        billed=rated.billed,
        cost=rated.cost,
    )


def as_rows(tenant: str, month: Month, currency: str, lines: Iterable[Line]) -> str:
    """Lines of a table (RFC 4180), without its head."""
    written = io.StringIO()
    table = csv.DictWriter(written, COLUMNS)
    for line in lines:
        plain = {name: _harmless(value) for name, value in line.plain().items()}
        about = {"tenant": _harmless(tenant), "month": month.text, "call_id": line.call_id, "currency": currency}
        table.writerow({**about, **plain})
    return written.getvalue()


def head() -> str:
    return ",".join(COLUMNS) + "\r\n"


def as_json(tenant: str, month: Month, currency: str, lines: Sequence[Line]) -> Mapping[str, Any]:
    return {
        "tenant": tenant,
        "month": month.text,
        "currency": currency,
        "lines": [line.plain() for line in lines],
        "total": f"{total(lines):f}",
    }


class _Sums:
    """By group, what was used, and at which price."""

    def __init__(self) -> None:
        self._lines: dict[tuple[object, ...], Line] = {}
        self._last: dict[tuple[object, ...], str] = {}

    def add(self, rated: Rated, group: str) -> None:
        row: UsageRow = rated.row
        key = (group, row.part, row.engine, row.vendor, row.model, id(rated.price))
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = Line(
                row.part, row.unit, row.engine, row.vendor, row.model, rated.price, group=group
            )
        line.calls += self._last.get(key) != row.call_id  # rows come call by call
        self._last[key] = row.call_id
        line.quantity += row.quantity
        line.billed += rated.billed
        line.cost += rated.cost

    def lines(self) -> Sequence[Line]:
        return sorted(
            self._lines.values(),
            key=lambda line: (line.group, line.part, line.engine, line.vendor, line.model, -line.calls),
        )


def _amount(quantity: int, size: int) -> str:
    return f"{Decimal(quantity) / size:f}"


def _harmless(value: Any) -> Any:
    """What a spreadsheet would take for a formula becomes text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
