"""The `gate:` part of the settings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class GateSettings(BaseModel):
    """public_url: how carriers and browsers reach our HTTP port, e.g. `https://voice.example.com`; empty: as they asked
    (Host). secret_env: the environment variable with the secret that signs tokens (at least 32 bytes, the same on all
    machines); unset: a secret of this start alone. token_s: how long a token lives by default. origins: web pages that
    may open WebSockets, e.g. `https://shop.example.com`; our own always may; `*`: all.

    connections: WebSockets at a time in a process; per_tenant, per_address: of these at most so many for one tenant,
    for one address. opens_per_s: new ones from one address a second. heartbeat_s: between pings; a peer of which
    nothing at all came since the last one is cut. message_bytes: the longest message that is taken. messages_per_s:
    from one connection; a burst of as many again is borne, more end it. queue_bytes: what may wait for a slow client
    before its sound is paused; four times as much, or slow_s of it, ends the connection.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    public_url: str = Field(default="", pattern=r"^(https?://[^/\s]+)?$")
    secret_env: str = "SIPSERVER_TOKEN_SECRET"  # noqa: S105 # nosec B105
    token_s: float = Field(default=120, gt=0, le=30 * 86_400)
    origins: tuple[str, ...] = ()
    connections: int = Field(default=2000, ge=1)
    per_tenant: int = Field(default=1000, ge=1)
    per_address: int = Field(default=1000, ge=1)
    opens_per_s: float = Field(default=200, gt=0)
    heartbeat_s: float = Field(default=15, gt=0)
    message_bytes: int = Field(default=65_536, ge=4096, le=1 << 20)
    messages_per_s: int = Field(default=500, ge=1)
    queue_bytes: int = Field(default=65_536, ge=4096)
    slow_s: float = Field(default=5, gt=0)
