"""The `sip:` part of the settings."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class SipTls(BaseModel):
    """TLS 1.2. certificate, key: PEM files that we show to peers; without them we take no calls by TLS and only place
    some. ca: PEM file of authorities; whoever we connect to must have a certificate of one of them, for the host name
    that the trunk names. port: where we take calls by TLS; 0 lets the system choose.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    certificate: Path | None = None
    key: Path | None = None
    ca: Path = Path("/etc/ssl/certs/ca-certificates.crt")
    port: int = Field(default=5061, ge=0, le=65535)

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        return self


class SipSettings(BaseModel):
    """One cell. Ports are UDP/TCP numbers; `port: 0` lets the system choose (tests).

    media_host: address that RTP is bound to and that SDP names unless there is a public_address; empty: that of `host`.
    behind_edge: requests come by way of our edge alone (`allow` names it), whose headers X-Sipserver-Source and
    X-Sipserver-Trunk are believed. Without it both are ignored. edge_route: Route of what begins here and goes out by a
    trunk, through the edge that does the rest; a fleet sets it.
    user: the user part of our own address in calls that we place.
    rtp_ports: first and last UDP port for media, two for each call (RTP even, RTCP odd).
    inbound_calls: calls accepted at a time; 0 means what the linked PJSIP holds, less one (DESIGN, "Why cells").
    retry_after_s: what a refused caller reads in `Retry-After`.
    allow: source networks (CIDR) that may call; empty means anyone who can reach the socket. Others get 403. With
    trunks (in a single server) nobody else may call: empty means that only trunks' peers may, and what it names may
    call beside them, by no trunk.
    realm: of the challenge to trunks' `users`.
    tls: for trunks with `transport: tls`, in both directions; nothing: they only place calls by it, and the system's
    authorities vouch for the peer.
    min_session_expires_s, session_expires_s: session timers (RFC 4028).
    rtp_stalled_s: silence on the wire after which `media.stalled` is reported.
    record_messages: keep the SIP messages, redacted, in the call record.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    media_host: str = ""
    port: int = Field(default=5060, ge=0, le=65535)
    tcp: bool = True
    public_address: str = ""
    user: str = Field(default="sipserver", pattern=r"^[A-Za-z0-9_.!~*'()&=+$,;?/-]+$")
    rtp_ports: tuple[int, int] = (10_000, 10_199)
    codecs: tuple[Literal["PCMA", "PCMU", "G722"], ...] = Field(default=("G722", "PCMA", "PCMU"), min_length=1)
    inbound_calls: int = Field(default=0, ge=0, le=32)
    retry_after_s: int = Field(default=5, ge=1)
    allow: tuple[str, ...] = ()
    behind_edge: bool = False
    edge_route: str = Field(default="", pattern=r"^(sip:[^<>\s]+;lr)?$")
    realm: str = Field(default="sipserver", pattern=r"^[A-Za-z0-9_.@-]+$")
    tls: SipTls | None = None
    user_agent: str = "sipserver"
    session_expires_s: int = Field(default=1800, ge=90)
    min_session_expires_s: int = Field(default=90, ge=90)
    rtp_stalled_s: float = Field(default=2, gt=0)
    record_messages: bool = True
    pjsip_log_level: int = Field(default=1, ge=0, le=6)

    @field_validator("rtp_ports")
    @classmethod
    def _port_range(cls, ports: tuple[int, int]) -> tuple[int, int]:
        first, last = ports
        if not 1024 <= first < last <= 65_535:
            raise ValueError("must be two ports from 1024 to 65535, the lower one first")
        return ports

    @field_validator("allow")
    @classmethod
    def _networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            try:
                ip_network(network)
            except ValueError as error:
                raise ValueError(f"{network!r} is not a network such as 192.0.2.0/24: {error}") from None
        return networks

    @model_validator(mode="after")
    def _timers(self) -> Self:
        if self.session_expires_s < self.min_session_expires_s:
            raise ValueError("session_expires_s must not be below min_session_expires_s")
        return self
