"""The `calls:` part of the settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class CallSettings(BaseModel):
    """recordings: folder of the WAV files. drain_s: how long running calls may go on after SIGTERM."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recordings: Path = Path("../var/recordings")
    drain_s: float = Field(default=120, ge=0)
    max_duration_s: float = Field(default=14_400, gt=0)
    inband_digits: bool = True
