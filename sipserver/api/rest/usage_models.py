"""What the REST API takes and gives about usage: its JSON, as models."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sipserver.api.rest.models import YEAR, Given, Moment, Taken

MONTH = f"^{YEAR}-(0[1-9]|1[0-2])$"


class UsageAsked(Taken):
    """Which calls, by when they began, and how they are put together."""

    from_: Moment = Field(alias="from", description="From then on; without a zone it is UTC.")
    to: Moment = Field(description="Before then.")
    by: Literal["day", "part"] = Field(default="part", description="`day`: each day (UTC) on its own.")


class ExportAsked(Taken):
    """A month, as a file."""

    month: str = Field(pattern=MONTH, description="E.g. 2026-11, in UTC.")
    format: Literal["json", "csv"] = "json"
    lines: Literal["sums", "calls"] = Field(default="sums", description="`calls`: every call's own; as `csv` only.")


class UsageLine(Given):
    """What was used of one thing at one price. Time is in seconds. billed: the quantity after rounding."""

    part: str
    engine: str = Field(description="The engine's name in the settings, or the trunk's.")
    vendor: str
    model: str
    calls: int
    quantity: str = Field(description="A decimal number, as all amounts are.")
    billed: str
    unit: str
    price: str | None = Field(description="null: there is none, and it costs nothing.")
    per: str
    rounding: str
    cost: str


class CallUsage(Given):
    """final: the call is over. Of one that runs there are no lines yet."""

    id: str
    final: bool
    currency: str
    lines: list[UsageLine]
    total: str


class UsageGroup(Given):
    """day: empty when they are put together by part alone."""

    day: str
    lines: list[UsageLine]
    total: str


class Usage(Given):
    currency: str
    groups: list[UsageGroup]
    total: str


class UsageExport(Given):
    """The base of an invoice. total: the sum of the lines, which is that of all calls."""

    tenant: str
    month: str
    currency: str
    lines: list[UsageLine]
    total: str
