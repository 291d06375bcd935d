"""What we answer Twilio with: TwiML, by the package `twilio`. Pure.

Source: Twilio, "TwiML Voice": <Connect>, <Stream>, <Dial>.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from twilio.twiml.voice_response import Connect, Dial, Stream, VoiceResponse

from sipserver.errors import CallerError

TOKEN = "token"  # noqa: S105 # nosec B105 - the name of a parameter
_NUMBER = re.compile(r"^\+?[0-9]{2,15}$")

FINAL: Mapping[str, int] = {
    "answered": 200,
    "in-progress": 200,
    "completed": 200,
    "busy": 486,
    "no-answer": 480,
    "canceled": 487,
    "failed": 503,
}
"""CallStatus and DialCallStatus as SIP statuses."""

HANG_UP = '<?xml version="1.0" encoding="UTF-8"?><Response><Hangup /></Response>'


def connect(url: str, parameters: Mapping[str, str]) -> str:
    """Connect the call to a stream. Nothing follows: when the stream closes, the call is over."""
    stream = Stream(url=url)
    for name, value in parameters.items():
        stream.parameter(name=name, value=value)
    answer = VoiceResponse()
    answer.append(Connect().append(stream))
    return str(answer)


def dial(to: str, *, shown: str, action_url: str, told_url: str, ring_s: int) -> str:
    """Connect the caller to a number or a SIP URI. told_url: learns when it rings and when it is answered; action_url:
    what became of it, and what is done then. Raises CallerError for what Twilio cannot call.
    """
    answer = VoiceResponse()
    verb = Dial(action=action_url, timeout=ring_s, **({"caller_id": shown} if shown else {}))
    told = {"status_callback": told_url, "status_callback_event": "ringing answered"}
    user = number_of(to)
    if user:
        verb.number(user, **told)
    elif to.lower().startswith(("sip:", "sips:")):
        verb.sip(to, **told)
    else:
        raise CallerError(f"Twilio calls numbers and SIP URIs, and {to!r} is neither")
    answer.append(verb)
    return str(answer)


def number_of(to: str) -> str:
    """A telephone number, also as tel URI, or as a user of our own names for Twilio's callers; empty: it is none."""
    inner = to.removeprefix("tel:")
    if inner.endswith(".twilio") and inner.startswith("sip:"):
        inner = inner.removeprefix("sip:").partition("@")[0]
    return inner if _NUMBER.match(inner) else ""
