"""The `http:` part of the settings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class HttpSettings(BaseModel):
    """phone: serve the test page /phone, from which anybody who reaches the port may call the users in phone_users."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    phone: bool = False
    phone_users: tuple[str, ...] = ("*",)
