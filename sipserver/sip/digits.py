"""Each key press exactly once, however often the network tells of it. Pure.

RFC 4733 repeats one event in many packets (the first may lack the marker bit, the last comes three times); all carry
the timestamp of the press. Some phones send SIP INFO beside it: within `BOTH_WAYS_S` the second telling is dropped.
"""

from __future__ import annotations

import re
from collections import deque

from sipserver.audio.tones import DIGITS
from sipserver.sip.facts import Key
from sipserver.sip.message import SipText

BOTH_WAYS_S = 0.5
_REMEMBERED = 16
_FIELD = re.compile(r"(?im)^\s*(signal|duration)\s*=\s*([^\s]+)\s*$")

_USUAL = "101"
_EVENTS = re.compile(r"(?mi)^a=rtpmap:(\d+) telephone-event/8000")


def of_info(message: SipText) -> tuple[str, int | None] | None:
    """Digit and duration in ms of an INFO body (application/dtmf-relay or application/dtmf), None if it holds no
    digit.
    """
    if message.content_type == "application/dtmf-relay":
        fields = {name.lower(): value for name, value in _FIELD.findall(message.body)}
        digit, duration = fields.get("signal", ""), fields.get("duration", "")
    elif message.content_type == "application/dtmf":
        digit, duration = message.body.strip(), ""
    else:
        return None
    digit = {"10": "*", "11": "#"}.get(digit, digit).upper()
    if len(digit) != 1 or digit not in DIGITS:
        return None
    return digit, int(duration) if duration.isdecimal() else None


class PressFilter:
    """Decides whether a piece of news is a new key press."""

    def __init__(self) -> None:
        self._marks: deque[tuple[str, int]] = deque(maxlen=_REMEMBERED)
        self._last: dict[str, tuple[str, float]] = {}  # digit -> (method, when)

    def is_new(self, key: Key, now_s: float) -> bool:
        """now_s: a monotonic clock. Call once for each piece, in order."""
        if key.method == "rfc4733":
            if (key.digit, key.mark) in self._marks:
                return False
            self._marks.append((key.digit, key.mark))
        method, at_s = self._last.get(key.digit, (key.method, now_s))
        if method != key.method and now_s - at_s < BOTH_WAYS_S:
            del self._last[key.digit]  # one twin for each press: the next telling counts again
            return False
        self._last[key.digit] = (key.method, now_s)
        return True


def usual_payload_type(offer: str) -> str:
    """An offer of ours with telephone-event as payload type 101 instead of PJSIP's 120, unless 101 is taken. Far ends
    should send what was offered (RFC 3264, section 5.1); many send 101 whatever it was.
    """
    found = _EVENTS.search(offer)
    if found is None or found.group(1) == _USUAL or re.search(rf"(?m)^a=rtpmap:{_USUAL}[ ]", offer):
        return offer
    ours = found.group(1)
    offer = re.sub(rf"(?m)^(a=(?:rtpmap|fmtp):){ours} ", rf"\g<1>{_USUAL} ", offer)
    return re.sub(rf"(?m)^(m=audio [^\r\n]*?) {ours}(?=[ \r\n]|$)", rf"\g<1> {_USUAL}", offer)
