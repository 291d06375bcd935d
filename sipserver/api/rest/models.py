"""What the REST API takes and gives: its JSON, as models. The OpenAPI document is made of them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, WithJsonSchema

from sipserver.calls.commands import OneLine
from sipserver.dialplan.steps.parties import HeaderName

HEADER = r"^[A-Za-z0-9!%*_+`'~.-]+$"
YEAR = "(19[7-9][0-9]|[2-8][0-9]{3})"
"""1970 to 8999: far enough from the first and the last date that every zone has its moments."""
FOUR_BYTES, EIGHT_BYTES = 1 << 31, 1 << 63
"""Numbers that the database keeps in so many bytes are below."""


_MOMENT = TypeAdapter(datetime)
_BEGINS = f"^{YEAR}-"


def _written_out(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return _MOMENT.validate_python(value if re.match(_BEGINS, value) else None)
    except ValidationError:
        raise ValueError("a moment looks like 2026-11-28T12:00:00Z, in a year from 1970 to 8999") from None


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Limit = Annotated[int, Field(ge=1, le=500)]
Moment = Annotated[
    datetime,
    BeforeValidator(_written_out),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": _BEGINS}),
]
"""Written out (RFC 3339): a number of seconds would be taken as well."""
Whole = Annotated[int, BeforeValidator(_whole)]
"""Of a body, which may write 3 as 3.0: that is an integer in JSON Schema."""


def aware(moment: datetime | None) -> datetime | None:
    """Without a zone it is UTC."""
    return moment if moment is None or moment.tzinfo is not None else moment.replace(tzinfo=UTC)


class Taken(BaseModel):
    """Of a request: an unknown field is a mistake of the sender, and told."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, str_strip_whitespace=True)


class Given(BaseModel):
    """Of an answer: further fields may come with a later version."""

    model_config = ConfigDict(frozen=True)


class CreateCall(Taken):
    """A call to place: to whom, and what runs when they answer."""

    to: OneLine = Field(min_length=1, description="A number such as +493012345, or a SIP URI.")
    flow: str = Field(default="", description="The flow to run; empty: that of the route for calls to this number.")
    trunk: str = Field(default="", description="The trunk or account to call by; empty: the first that carries it.")
    from_: OneLine = Field(default="", alias="from", description="The number to show, if the trunk allows it.")
    from_display: OneLine = Field(default="", description="The name to show.")
    headers: dict[HeaderName, OneLine] = Field(
        default={}, description="SIP headers to send.", json_schema_extra={"propertyNames": {"pattern": HEADER}}
    )
    ring_s: float = Field(default=30, gt=0, le=600, description="How long it may ring, over all trunks, in seconds.")
    variables: dict[str, str] = Field(default={}, description="Start values of the dialplan's variables.")
    detect_answerer: bool = Field(
        default=False, description="Find out first who answered: the flow has it in the variable `answerer`."
    )


class CallCreated(Given):
    id: str
    url: str = Field(description="Where the call is to be found.")


class TransferCall(Taken):
    """Whom to hand the call over to; the options of the dialplan's step `transfer`."""

    to: OneLine = Field(min_length=1, max_length=500, description="A number, user or SIP URI that `targets` allows.")
    mode: Literal["blind", "attended", "warm"] = "attended"
    trunk: OneLine = ""
    ring_s: float = Field(default=30, gt=0, le=600, description="How long it may ring, in seconds.")
    announce: str = Field(default="", max_length=2000, description="With `warm`: what the target hears first.")


class SayText(Taken):
    """What to say; the options of the dialplan's step `say`. `{name}` is a variable of the call."""

    text: str = Field(min_length=1, max_length=5000)
    language: str = ""
    tts: str = Field(default="", description="An engine of the settings; empty: the default.")
    voice: str = ""


class PlaySound(Taken):
    """What to play; the options of the dialplan's step `play`."""

    file: OneLine = Field(
        min_length=1,
        max_length=500,
        description="One that the dialplan plays itself, or of the folder beside it that has the tenant's name.",
    )
    interruptible: bool = Field(default=True, description="A digit of the caller ends it.")


class SendDigits(Taken):
    digits: str = Field(pattern=r"^[0-9A-Da-d*#]{1,64}$", description="What to send to the far end, as keys.")
    duration_ms: Whole = Field(default=160, ge=40, le=1000, description="How long each key is held.")


class RecordCall(Taken):
    """What the recording is to do; the options of the dialplan's step `record`."""

    action: Literal["start", "stop", "pause", "resume"] = "start"
    stereo: bool = Field(default=True, description="The caller left, the server right; otherwise both mixed.")


class Accepted(Given):
    """It is being done; the events of the call tell what comes of it."""

    id: str


class Call(Given):
    """A call, as its record has it so far. What has not happened is null."""

    id: str
    direction: str
    from_uri: str
    to_uri: str
    state: str = Field(description="`ringing`, `answered`, `ending` or `ended`.")
    started_at: datetime | None
    answered_at: datetime | None = None
    ended_at: datetime | None = None
    end_reason: str | None = Field(default=None, description="Why it ended; docs/operations.md has the list.")
    sip_code: int | None = None
    sip_call_id: str = ""
    flow: str | None = None
    recording: str | None = Field(
        default=None,
        description="`recording`, `complete`, `failed`, or `refused`: nothing more may be kept; null: there is none.",
    )
    mos: float | None = Field(default=None, description="How it sounded, 1 to 4.5.")
    turns: int = 0
    digits: int = 0
    faults: int = 0


class CallPage(Given):
    calls: list[Call]
    next: str | None = Field(description="The `cursor` of the next page; null: this is the last one.")


class CallsAsked(Taken):
    """Which calls. All conditions must hold."""

    limit: Limit = 50
    cursor: str = Field(
        default="", max_length=200, pattern=r"^[A-Za-z0-9_=-]*$", description="`next` of the page before."
    )
    direction: Literal["inbound", "outbound"] | None = None
    from_: str = Field(default="", alias="from", max_length=100, description="The caller's number or user.")
    to: str = Field(default="", max_length=100, description="The number or user that was called.")
    open: bool | None = Field(default=None, description="true: those that run; false: those that are over.")
    end_reason: str = Field(default="", max_length=64)
    since: Moment | None = Field(default=None, description="Begun at or after this moment (RFC 3339).")
    until: Moment | None = Field(default=None, description="Begun before this moment.")


class EventsAsked(Taken):
    after: int = Field(default=-1, ge=-1, lt=FOUR_BYTES, description="Only events with a higher `seq`.")
    limit: Limit = 500


class RecordingAsked(Taken):
    number: int = Field(default=0, ge=0, le=9999, description="Which one, from 1, of a call with several; 0: the last.")


class CallEvent(Given):
    seq: int
    at_ms: int = Field(description="Since the call began.")
    kind: str
    timestamp: datetime | None = Field(description="When it happened; null for what an older server wrote.")
    fields: dict[str, Any]


class CallEvents(Given):
    events: list[CallEvent]
    more: bool = Field(description="There may be more after the last one.")


class Said(Given):
    at_ms: int
    who: Literal["caller", "server"]
    text: str


class CallTranscript(Given):
    """What was said: by the caller as it was understood, by the server as far as it was heard."""

    lines: list[Said]
