"""The `audit:` and `tenants:` parts of the settings."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class AuditSettings(BaseModel):
    """secret_env: the environment variable with the secret that seals the audit log (at least 32 bytes, the same on all
    machines and for as long as the log is kept). secret_file: where it is otherwise; made at the first entry.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    secret_env: str = "SIPSERVER_AUDIT_SECRET"  # noqa: S105
    secret_file: Path = Path("../var/audit.secret")


class TenantLimits(BaseModel):
    """On all machines together; 0: no limit. calls: at a time. calls_per_s: that begin within a second of the clock.
    minutes_a_day: of calls, each begun minute as a whole, by days in UTC. spend_a_day, spend_a_month: what calls that
    are over cost by `prices`. api_per_s: requests to the REST API with any of the tenant's keys. on_exceeded: what
    becomes of calls that run when minutes or spend are used up. stripe_customer: whom meter events name (`cus_...`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    calls: int = Field(default=0, ge=0)
    calls_per_s: int = Field(default=0, ge=0)
    minutes_a_day: int = Field(default=0, ge=0)
    spend_a_day: Decimal = Field(default=Decimal(0), ge=0, max_digits=15, decimal_places=6)
    spend_a_month: Decimal = Field(default=Decimal(0), ge=0, max_digits=15, decimal_places=6)
    api_per_s: int = Field(default=0, ge=0)
    on_exceeded: Literal["finish", "hangup"] = "finish"
    stripe_customer: str = Field(default="", pattern=r"^[A-Za-z0-9_]{0,255}$")
