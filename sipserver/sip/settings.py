"""The `sip:` part of the settings."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class SipSettings(BaseModel):
    """One cell. Ports are UDP/TCP numbers; `port: 0` lets the system choose (tests).

    inbound_calls: calls accepted at a time; 0 means what the linked PJSIP holds, less one (DESIGN, "Why cells").
    allow: source networks (CIDR) that may call; empty means anyone who can reach the socket.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=5060, ge=0, le=65535)
    tcp: bool = True
    public_address: str = ""
    rtp_ports: tuple[int, int] = (10_000, 10_199)
    codecs: tuple[Literal["PCMA", "PCMU", "G722"], ...] = ("G722", "PCMA", "PCMU")
    inbound_calls: int = Field(default=0, ge=0, le=32)
    retry_after_s: int = Field(default=5, ge=1)
    allow: tuple[str, ...] = ()
    user_agent: str = "sipserver"
    session_expires_s: int = Field(default=1800, ge=90)
    min_session_expires_s: int = Field(default=90, ge=90)
    rtp_timeout_s: float = Field(default=30, gt=0)
    record_messages: bool = True
    pjsip_log_level: int = Field(default=1, ge=0, le=6)
