"""The `bus:` part of the settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class BusSettings(BaseModel):
    """url: empty for one process (memory), `redis://host:port/db`, `rediss://` or `unix:///path` for a fleet. A
    password comes from the environment variable that password_env names.

    prefix: stands before every key, so that several fleets can share a server. spool: where entries of the journal
    wait while Redis (or the database) is away; they follow in order. queue: entries held in memory before they go to
    the spool. lease_s: how long a silent process or machine counts as alive.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(default="", pattern=r"^((redis|rediss|unix)://.+)?$")
    password_env: str = "SIPSERVER_REDIS_PASSWORD"  # noqa: S105  the name of a variable
    prefix: str = Field(default="sipserver", pattern=r"^[A-Za-z0-9_.-]+$")
    spool: Path = Path("../var/spool")
    queue: int = Field(default=1_000, ge=10)
    lease_s: float = Field(default=4, ge=1)
