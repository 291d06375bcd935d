"""The `calls:` part of the settings."""

from __future__ import annotations

import enum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class Redact(enum.StrEnum):
    """What is replaced in all that is told about a tenant's calls. CARDS: card numbers. DIGITS: all digits that were
    typed or said, too.
    """

    OFF = "off"
    CARDS = "cards"
    DIGITS = "digits"


class EncryptionSettings(BaseModel):
    """Recordings and messages on the disk. enabled: new files are encrypted; otherwise old ones are still read.

    keys_env: the environment variable with the keys, `id:base64 of 32 bytes`, separated by commas. The first one
    encrypts, all of them decrypt.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = False
    keys_env: str = Field(default="SIPSERVER_RECORDING_KEYS", min_length=1)


class CallSettings(BaseModel):
    """recordings: folder of the WAV files. drain_s: how long running calls may go on after SIGTERM.

    media_timeout_s: a call whose caller's RTP has been missing for so long, and that is not on hold, is ended.
    inband_digits: listen for tones on legs that have neither telephone-event nor INFO digits.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    recordings: Path = Path("../var/recordings")
    encryption: EncryptionSettings = EncryptionSettings()
    drain_s: float = Field(default=120, ge=0)
    max_duration_s: float = Field(default=14_400, gt=0)
    media_timeout_s: float = Field(default=30, gt=0)
    inband_digits: bool = True
