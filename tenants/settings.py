"""The `audit:` part of the settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict


class AuditSettings(BaseModel):
    """secret_env: the environment variable with the secret that seals the audit log (at least 32 bytes, the same on all
    machines and for as long as the log is kept). secret_file: where it is otherwise; made at the first entry.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    secret_env: str = "SIPSERVER_AUDIT_SECRET"  # noqa: S105
    secret_file: Path = Path("../var/audit.secret")
