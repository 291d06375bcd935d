"""stream: a step that hands the caller to somebody's bot. Whom it may connect to is this file's business alone."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from sipserver.dialplan.agents import Template, Text
from sipserver.dialplan.steps.base import Step

HeaderName = Annotated[Text, Field(pattern=r"^[A-Za-z0-9-]+$")]
Environment = Annotated[Text, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]

_HOST = re.compile(r"^wss?://[^/{}\s?#]+([/?]|$)")

_OURS = frozenset({"host", "connection", "upgrade", "origin", "content-length", "transfer-encoding"})


class Stream(Step):
    """Hand the caller's sound to a bot behind a WebSocket, and let the caller hear what it says.

    We speak the carrier's side of the protocol, so that a bot written for that carrier needs no change. With
    `both: false` the bot only listens, also to what the caller hears if `tracks` says so; the flow goes on at once, and
    the bot listens until the call ends. Outcomes: done (the bot hung up; or it listens), failed (no connection, wrong
    answers, not read or broken), silent (nothing from it for silent_s; 0: it may be silent), max_duration.
    """

    word = "stream"
    short = "url"
    outcomes = ("done", "failed", "silent", "max_duration")
    required = frozenset({"failed"})
    waits = True
    needs_media = True
    hears = True

    url: Template
    protocol: Literal["twilio", "vonage", "asterisk", "asterisk-json", "pcm"] = "twilio"
    both: bool = True
    tracks: Literal["inbound", "outbound", "both"] = "inbound"
    rate_hz: Literal[8000, 16_000, 24_000] | None = None
    parameters: dict[Text, Template] = Field(default_factory=dict)
    headers: dict[HeaderName, Template] = Field(default_factory=dict)
    headers_env: dict[HeaderName, Environment] = Field(default_factory=dict)
    sign_env: Text = Field(default="", pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")
    connect_s: float = Field(default=5, gt=0, le=60)
    silent_s: float = Field(default=0, ge=0, le=3600)
    max_s: float = Field(default=3600, gt=0)

    @model_validator(mode="after")
    def _possible(self) -> Stream:
        if not _HOST.match(self.url):
            raise ValueError("`url` begins with ws:// or wss:// and a host in which no variable stands")
        if self.both and self.tracks != "inbound":
            raise ValueError("`tracks` needs `both: false`: a bot that speaks gets the caller's sound")
        if self.tracks == "both" and self.protocol != "twilio":
            raise ValueError("`tracks: both` needs `protocol: twilio`: the others do not say whose sound it is")
        if self.protocol == "twilio" and self.rate_hz not in (None, 8000):
            raise ValueError("`protocol: twilio` has 8000 Hz")
        if self.sign_env and self.protocol != "twilio":
            raise ValueError("`sign_env` needs `protocol: twilio`")
        for option in ("silent_s", "max_s"):
            if not self.both and option in self.model_fields_set:
                raise ValueError(f"`{option}` needs `both: true`: a bot that only listens does so until the call ends")
        for name in (*self.headers, *self.headers_env):
            if name.lower() in _OURS or name.lower().startswith("sec-websocket-"):
                raise ValueError(f"`{name}` is a header of the handshake itself")
        return self

    def templates(self) -> tuple[str, ...]:
        return (self.url, *self.parameters.values(), *self.headers.values())
