"""The `http:` part of the settings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class HttpSettings(BaseModel):
    """phone: serve the test page /phone, from which anybody who reaches the port may call the users in phone_users.

    api: serve the REST API at /api/v1, for whoever has a key (`sipserver keys`). api_per_s: requests of one key a
    second; twice as many at once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    phone: bool = False
    phone_users: tuple[str, ...] = ("*",)
    api: bool = True
    api_per_s: float = Field(default=50, gt=0)
