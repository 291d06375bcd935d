"""The `edge:` part of the settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Listen(BaseModel):
    """One socket of the edge. advertise: host or host:port that peers shall see instead (NAT)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    transport: Literal["udp", "tcp", "tls"]
    host: str
    port: int = Field(default=5060, ge=1, le=65_535)
    advertise: str = ""


class TlsSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    certificate: Path
    key: Path
    ca: Path | None = None
    verify_client: bool = False


class FloodSettings(BaseModel):
    """requests: from one address within interval_s; more are dropped and the address is banned for ban_s (pike)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests: int = Field(default=500, ge=1)
    interval_s: int = Field(default=2, ge=1)
    ban_s: int = Field(default=300, ge=1)


class RtpengineSettings(BaseModel):
    """The media relay beside the edge. interfaces: as rtpengine writes them, `outside/203.0.113.7` and, behind NAT,
    `outside/10.0.0.5!203.0.113.7` (local!public); one of each family at most. `inside/` is where the cells are.

    strict_source: sound is taken only from the address that the caller's SDP (or ICE) names. False, for callers behind
    NAT without ICE: from the address that sends within the first 3 s, and from no other afterwards.
    relay: `always`, or when `needed` (SRTP, a codec that cells do not speak, IPv6): then the others' sound goes to the
    cells directly, at no cost here, and their `sip.media_host` must be reachable for callers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    program: str = "rtpengine"
    control: str = Field(default="127.0.0.1:2223", pattern=r"^([0-9.]+|\[[0-9A-Fa-f:]+\]):[0-9]+$")
    interfaces: tuple[str, ...] = ("outside/127.0.0.1", "inside/127.0.0.1")
    ports: tuple[int, int] = (40_000, 59_999)
    strict_source: bool = True
    relay: Literal["always", "needed"] = "always"

    @field_validator("interfaces")
    @classmethod
    def _two_sides(cls, interfaces: tuple[str, ...]) -> tuple[str, ...]:
        if not all(re.fullmatch(r"(outside|inside)/[^\s;/]+", interface) for interface in interfaces):
            raise ValueError("each must be outside/ or inside/ and an address")
        if len({interface.partition("/")[0] for interface in interfaces}) < 2:
            raise ValueError("both outside/ and inside/ must be there")
        return interfaces

    @field_validator("ports")
    @classmethod
    def _ports_in_order(cls, ports: tuple[int, int]) -> tuple[int, int]:
        if not 1024 <= ports[0] < ports[1] <= 65_535:
            raise ValueError("must be two ports from 1024 to 65535, the lower one first")
        return ports


class EdgeSettings(BaseModel):
    """Kamailio. enabled: this machine has an edge; one that only has cells says false and appears in the others' lists.
    run_by: who starts, restarts and stops Kamailio and rtpengine; with `systemd` (units in systemd/) the supervisor
    waits for them and uses them. inside: address from which the edge talks to cells. folder: rendered files, sockets,
    pid files. open: take calls from sources that no trunk names (a laboratory; never on the internet).
    realm, digest: of the challenge to trunks' users (RFC 8760: SHA-256 where all of them know it).
    longest_call_s: a place in a cell is freed after it, should nobody have told the end; no shorter than calls last.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = True
    run_by: Literal["supervisor", "systemd"] = "supervisor"
    program: str = "kamailio"
    folder: Path = Path("../var/edge")
    listen: tuple[Listen, ...] = (Listen(transport="udp", host="127.0.0.1"), Listen(transport="tcp", host="127.0.0.1"))
    inside: str = "127.0.0.1"
    inside_port: int = Field(default=5059, ge=1, le=65_535)
    children: int = Field(default=2, ge=1)
    memory_mb: int = Field(default=256, ge=32)
    open: bool = False
    realm: str = Field(default="sipserver", pattern=r"^[A-Za-z0-9_.@-]+$")
    digest: Literal["MD5", "SHA-256"] = "MD5"
    longest_call_s: int = Field(default=18_000, ge=60)
    tls: TlsSettings | None = None
    flood: FloodSettings = FloodSettings()
    max_message_bytes: int = Field(default=16_384, ge=1024, le=65_535)
    ptime_ms: tuple[int, int] = (10, 60)
    topology_hiding: bool = True
    probe_s: int = Field(default=2, ge=1)
    retry_after_s: int = Field(default=5, ge=1)
    rtpengine: RtpengineSettings | None = None
