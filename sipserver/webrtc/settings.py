"""The `webrtc:` part of the settings."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class IceServer(BaseModel):
    """A STUN or TURN server. password_env: the environment variable with the TURN password (`credential`), for us and
    for the browsers that call us.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    urls: tuple[str, ...] = Field(min_length=1)
    username: str = ""
    password_env: str = ""


class WebRtcSettings(BaseModel):
    """codecs: in the order of preference. bit_rates: the lowest and the highest for Opus, bit/s.

    ice_s: how long ICE may take before the caller is told to use the plain WebSocket. restart_s: how long a call waits
    for an ICE restart when its path broke. calls: at a time in a process.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    codecs: tuple[Literal["opus", "G722", "PCMU", "PCMA"], ...] = ("opus", "G722", "PCMU", "PCMA")
    ice_servers: tuple[IceServer, ...] = ()
    bit_rates: tuple[int, int] = (12_000, 40_000)
    ice_s: float = Field(default=3, gt=0, le=30)
    restart_s: float = Field(default=10, gt=0, le=60)
    calls: int = Field(default=50, ge=1)
