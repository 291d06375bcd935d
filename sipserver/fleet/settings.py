"""The `fleet:` part of the settings: how many of what, and where their sockets lie."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class FleetSettings(BaseModel):
    """node: this machine's name in records, leases and the journal; the host's name by default.

    calls: how many this machine takes at a time; the number of cells follows from it and from what the linked PJSIP
    holds (`sip.inbound_calls` a cell). host: address of the cells' SIP sockets, reachable from every edge; sip_ports:
    one of this range a cell. files_port: at the same address, where other machines fetch recordings that lie here (by
    HTTP); 0: each gateway has any free port. Sound goes to `sip.media_host` within `sip.rtp_ports`, split among the
    cells. runtime: sockets and pid files. gateways: HTTP processes on `http.port`; 0: one a core. speech_workers:
    processes that hold the models. heartbeat_s: how often children report; hang_s: silence after which one is killed.
    ready_s: how long a child may take to start. backoff_s: first and longest pause of a child that crashes again and
    again; alarm_crashes within alarm_s raise an alarm. orphan_s: how long children without a supervisor go on taking
    calls; the next supervisor has replaced them by then.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    node: str = Field(default="", pattern=r"^[A-Za-z0-9_.-]*$")
    calls: int = Field(default=60, ge=1, le=10_000)
    host: str = "127.0.0.1"
    sip_ports: tuple[int, int] = (5100, 5999)
    files_port: int = Field(default=0, ge=0, le=65_535)
    runtime: Path = Path("../var/run")
    gateways: int = Field(default=0, ge=0, le=64)
    speech_workers: int = Field(default=1, ge=0, le=64)
    heartbeat_s: float = Field(default=1, gt=0)
    hang_s: float = Field(default=5, gt=0)
    ready_s: float = Field(default=20, gt=0)
    backoff_s: tuple[float, float] = (0.2, 30)
    alarm_crashes: int = Field(default=5, ge=1)
    alarm_s: float = Field(default=60, gt=0)
    orphan_s: float = Field(default=15, gt=0)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        first, last = self.sip_ports
        if not 1024 <= first < last <= 65_535:
            raise ValueError("sip_ports must be two ports from 1024 to 65535, the lower one first")
        if self.hang_s <= 2 * self.heartbeat_s:
            raise ValueError("hang_s must be more than twice heartbeat_s")
        return self
