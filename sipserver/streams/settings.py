"""The `streams:` part of the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
Environment = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class TwilioAccount(BaseModel):
    """An account of Twilio whose calls come here. name: as dialplans and `dial` see it (`trunk`).

    auth_token_env: the environment variable with the auth token, which signs their webhooks and lets us use their REST
    API. from: the number that calls show which we place. api_url: where their REST API is. lead_ms: how much sound lies
    with Twilio ahead of its time; a late tick of ours is not heard then.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    name: Name = "twilio"
    account_sid: str = Field(pattern=r"^AC[0-9a-fA-F]{32}$")
    auth_token_env: Environment = "TWILIO_AUTH_TOKEN"  # noqa: S105 # nosec B105
    from_: str = Field(default="", alias="from")
    api_url: str = Field(default="https://api.twilio.com", pattern=r"^https?://[^\s]+$")
    lead_ms: int = Field(default=60, ge=0, le=1000)


class VonageAccount(BaseModel):
    """An application of Vonage whose calls come here. signature_secret_env: the environment variable with the account's
    signature secret, which signs their webhooks; private_key: the file with the application's key, for their REST API.
    rate_hz: of the sound on the WebSocket.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    name: Name = "vonage"
    application_id: str = Field(min_length=1)
    private_key: Path | None = None
    signature_secret_env: Environment = "VONAGE_SIGNATURE_SECRET"  # noqa: S105 # nosec B105
    from_: str = Field(default="", alias="from")
    api_url: str = Field(default="https://api.nexmo.com", pattern=r"^https?://[^\s]+$")
    rate_hz: Literal[8000, 16000, 24000] = 16_000
    lead_ms: int = Field(default=60, ge=0, le=1000)


class VoiceSettings(BaseModel):
    """The plain voice WebSocket. resume_s: how long a call waits for a connection that dropped. lead_ms: as with the
    carriers: how much sound lies with the client ahead of its time.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    resume_s: float = Field(default=5, ge=0, le=60)
    lead_ms: int = Field(default=40, ge=0, le=1000)


class StreamSettings(BaseModel):
    """calls: at a time by WebSockets in a process, all kinds together; further ones are refused.

    stalled_s: no sound from the peer for this long is reported. record_messages: keep what the protocols say, sound
    apart, in the record of the call.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    twilio: tuple[TwilioAccount, ...] = ()
    vonage: tuple[VonageAccount, ...] = ()
    voice: VoiceSettings = VoiceSettings()
    calls: int = Field(default=500, ge=1)
    stalled_s: float = Field(default=2, gt=0)
    record_messages: bool = True

    @model_validator(mode="after")
    def _named_apart(self) -> Self:
        names = self.names
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two accounts are called {', '.join(sorted(twice))}; give one another name")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        twilio, vonage = (account.name for account in self.twilio), (account.name for account in self.vonage)
        return (*twilio, *vonage)
