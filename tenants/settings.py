"""The `audit:` part of the settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


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
