"""The `audit:`, `retention:`, `login:` and `tenants:` parts of the settings."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from sipserver.tenants.branding import BrandingSettings
from sipserver.tenants.roles import Role


class AuditSettings(BaseModel):
    """secret_env: the environment variable with the secret that seals the audit log (at least 32 bytes, the same on all
    machines and for as long as the log is kept). secret_file: where it is otherwise; made at the first entry.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    secret_env: str = "SIPSERVER_AUDIT_SECRET"  # noqa: S105
    secret_file: Path = Path("../var/audit.secret")


class KeepSettings(BaseModel):
    """Days after the end of a call for which each kind is kept; 0: for ever. A call that is deleted takes all that
    belongs to it with it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    records_days: int = Field(default=0, ge=0)
    events_days: int = Field(default=0, ge=0)
    transcripts_days: int = Field(default=0, ge=0)
    recordings_days: int = Field(default=0, ge=0)
    voicemail_days: int = Field(default=0, ge=0)
    webhooks_days: int = Field(default=0, ge=0)


class RetentionSettings(KeepSettings):
    """sweep_s: how often is looked for what is too old. batch: so many calls are deleted at a time. tenants: what is
    kept for another time, by tenant.
    """

    sweep_s: float = Field(default=3600, gt=0)
    batch: int = Field(default=500, ge=1, le=5_000)
    tenants: dict[str, KeepSettings] = {}

    def of(self, tenant: str) -> KeepSettings:
        """What holds for a tenant: its own days where it has any, else those of all."""
        own = self.tenants.get(tenant, KeepSettings())
        common = {name: getattr(self, name) for name in KeepSettings.model_fields}
        return KeepSettings(**{**common, **{name: getattr(own, name) for name in own.model_fields_set}})


class ProviderSettings(BaseModel):
    """An OpenID provider by which people of these tenants log in (none named: of all, as long as they are users
    already). issuer: its address, as it calls itself. client_secret_env: the environment variable with the secret;
    empty: a public client. domains: of e-mail addresses that are let in; none: all.

    role_claim, roles: the claim of the ID token that says the role, and what its values mean; who has no such value is
    not let in, and who has another one gets another role. create: make a user of whoever comes first, with the role of
    the claim, or else new_role.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: str = Field(pattern=r"^https?://[^/\s?#]+[^\s?#]*$")
    client_id: str = Field(min_length=1)
    client_secret_env: str = ""
    tenants: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ("openid", "email", "profile")
    domains: tuple[str, ...] = ()
    role_claim: str = ""
    roles: dict[str, Role] = {}
    create: bool = False
    new_role: Role | None = None

    @field_validator("issuer")
    @classmethod
    def _safe(cls, issuer: str) -> str:
        parts = urlsplit(issuer)
        if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError("it has to be https")
        return issuer

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.role_claim) != bool(self.roles):
            raise ValueError("role_claim and roles belong together")
        if self.create and not self.tenants:
            raise ValueError("create needs `tenants`: say whose users are made")
        if self.create and not (self.roles or self.new_role):
            raise ValueError("create needs `roles` or `new_role`: say what new users may do")
        if "openid" not in self.scopes:
            raise ValueError("scopes: `openid` is missing")
        return self


class LoginSettings(BaseModel):
    """idle_min, hours: a session ends when nothing was asked for so many minutes, and so many hours after it began.
    passwords: people may log in with one. per_address_per_s: attempts of one address a second; ten at once are borne.
    oidc: OpenID providers; a tenant has one at most.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    idle_min: float = Field(default=60, gt=0, le=30 * 1440)
    hours: float = Field(default=12, gt=0, le=30 * 24)
    passwords: bool = True
    per_address_per_s: float = Field(default=0.5, gt=0)
    oidc: tuple[ProviderSettings, ...] = ()

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        named = [tenant for provider in self.oidc for tenant in provider.tenants or ("every tenant",)]
        if twice := sorted({tenant for tenant in named if named.count(tenant) > 1}):
            raise ValueError(f"oidc: two providers for {', '.join(twice)}")
        return self

    def provider_of(self, tenant: str) -> ProviderSettings | None:
        """The tenant's own, or else that of all."""
        own = (provider for provider in self.oidc if tenant in provider.tenants)
        return next(own, next((provider for provider in self.oidc if not provider.tenants), None))


class TenantLimits(BaseModel):
    """On all machines together; 0: no limit. calls: at a time. calls_per_s: that begin within a second of the clock.
    minutes_a_day: of calls, each begun minute as a whole, by days in UTC. spend_a_day, spend_a_month: what calls
    cost by `prices`. api_per_s: requests to the REST API with any of the tenant's keys. agents: in the
    tenant's dialplan. storage_bytes: of recordings and voicemail that are kept. on_exceeded: what
    becomes of calls that run when minutes or spend are used up. stripe_customer: whom meter events name (`cus_...`).
    redact: what is replaced in events, records, webhooks and logs: card numbers, all digits, or nothing.
    branding: how pages and programs show the tenant.

    numbers: globs of numbers or users that are this tenant's alone: calls to them ask no other routes. Of dialplans
    that come by REST, numbers: what their routes may take; targets: globs of where calls may go; hosts: globs of
    servers that may be told. Without them: what the operator's own last dialplan of the tenant has.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    calls: int = Field(default=0, ge=0)
    calls_per_s: int = Field(default=0, ge=0)
    minutes_a_day: int = Field(default=0, ge=0)
    spend_a_day: Decimal = Field(default=Decimal(0), ge=0, max_digits=15, decimal_places=6)
    spend_a_month: Decimal = Field(default=Decimal(0), ge=0, max_digits=15, decimal_places=6)
    api_per_s: int = Field(default=0, ge=0)
    agents: int = Field(default=0, ge=0)
    storage_bytes: int = Field(default=0, ge=0)
    on_exceeded: Literal["finish", "hangup"] = "finish"
    stripe_customer: str = Field(default="", pattern=r"^[A-Za-z0-9_]{0,255}$")
    numbers: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    redact: Literal["cards", "digits", "off"] = "cards"
    branding: BrandingSettings = BrandingSettings()
