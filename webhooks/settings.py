"""The `webhooks:` part of the settings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class WebhookSettings(BaseModel):
    """Events that are sent to tenants' own servers. allow_private: endpoints may also be in private networks and on
    this machine, and those by http; for servers whose tenants are trusted.

    connect_timeout_s, timeout_s: for the connection, and for one attempt as a whole. per_tenant: attempts at a time for
    one tenant, all processes together. connections: attempts at a time of one process. queue: messages that wait for
    one endpoint; beyond it the newest are dropped and counted. retention_days: how long attempts, delivered messages
    and dead letters are kept.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    allow_private: bool = False
    connect_timeout_s: float = Field(default=5, gt=0, le=60)
    timeout_s: float = Field(default=15, gt=0, le=120)
    per_tenant: int = Field(default=8, ge=1)
    connections: int = Field(default=64, ge=1)
    queue: int = Field(default=100_000, ge=100)
    retention_days: int = Field(default=30, ge=1)
