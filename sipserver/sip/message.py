"""Reading one SIP message as text: start line, headers, body, redaction. Pure.

PJSIP parses, checks and routes; this module only takes out what the dialplan and the record want to see. It never
raises: what it cannot read is empty.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_COMPACT = {
    "v": "via", "f": "from", "t": "to", "i": "call-id", "m": "contact", "c": "content-type", "l": "content-length",
    "s": "subject", "k": "supported", "e": "content-encoding", "o": "event", "r": "refer-to",
    "b": "referred-by", "x": "session-expires",
}  # fmt: skip
"""RFC 3261 section 7.3.3 and the compact forms of later RFCs."""

_FOLD = re.compile(r"\r?\n[ \t]+")
_SECRET_HEADER = re.compile(
    r"(?im)^((?:proxy-)?authorization|authentication-info)([ \t]*:[ \t]*)((?:digest|basic|bearer)\b)?"
    r"[^\r\n]*(?:\r?\n[ \t]+[^\r\n]*)*"
)
_SECRET_SDP = re.compile(r"(?im)^(a=(?:crypto|key-mgmt|ice-pwd):)[^\r\n]*|^(k=)[^\r\n]*")
_HEAD_ENDS = re.compile(r"\r?\n\r?\n")
_LINE_ENDS = re.compile(r"\r?\n")
_ADDRESS = re.compile(r"""(?:\s*"(?:[^"\\]|\\.)*"\s*|[^"<:@]*)<([^<>]*)>""", re.S)
"""`name-addr` of RFC 3261, section 25.1: what a display name quotes is no address, and one without quotes is tokens."""

_USER = re.compile(r"^(?:sips?:)([^@>]*)@|^tel:([^;?>]*)", re.I)


@dataclass(frozen=True, slots=True)
class SipText:
    """One message. headers: (lower-case long name, value), in order, folded lines joined."""

    start_line: str
    headers: tuple[tuple[str, str], ...]
    body: str

    @classmethod
    def parse(cls, text: str) -> SipText:
        """A line ends as it does for the edge: other characters that Unicode counts as line ends are within a value."""
        head, *rest = _HEAD_ENDS.split(text, maxsplit=1)
        lines = _LINE_ENDS.split(_FOLD.sub(" ", head))
        headers = []
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if colon:
                key = name.strip().lower()
                headers.append((_COMPACT.get(key, key), value.strip()))
        return cls(lines[0], tuple(headers), "".join(rest))

    def header(self, name: str) -> str:
        """The first value of a header by its lower-case long name, or an empty string."""
        return next((value for key, value in self.headers if key == name), "")

    @property
    def method(self) -> str:
        """INVITE, BYE, ...; for a response the method that it answers."""
        return self.header("cseq").rpartition(" ")[2].upper() or self.start_line.partition(" ")[0].upper()

    @property
    def is_response(self) -> bool:
        return self.start_line.startswith("SIP/2.0 ")

    @property
    def summary(self) -> str:
        """ "INVITE", or "200 OK (INVITE)"; of a response without CSeq only its first line."""
        if not self.is_response:
            return self.start_line.partition(" ")[0]
        answered = f" ({self.method})" if self.header("cseq") else ""
        return self.start_line.removeprefix("SIP/2.0 ") + answered

    @property
    def request_uri(self) -> str:
        parts = self.start_line.split(" ")
        return parts[1] if len(parts) == 3 and not self.is_response else ""

    @property
    def transport(self) -> str:
        """udp, tcp, tls, ... as the topmost Via names it."""
        return self.header("via").partition(" ")[0].rpartition("/")[2].lower()

    @property
    def content_type(self) -> str:
        return self.header("content-type").partition(";")[0].strip().lower()

    @property
    def has_sdp(self) -> bool:
        return bool(self.body.strip()) and (
            self.content_type == "application/sdp" or self.content_type.startswith("multipart/")
        )


def uri_of(address: str) -> str:
    """The URI of a From, To or Contact value: without display name, brackets and header parameters. Empty for what is
    none, such as a quotation that never ends.
    """
    found = bracketed(address)
    if found is None:
        found = address.partition(";")[0]
        found = "" if set(found) & set('"<>') else found
    return found.strip()


def bracketed(address: str) -> str | None:
    """What stands in the angle brackets behind the display name; None where there are none."""
    found = _ADDRESS.match(address)
    return found.group(1) if found else None


def user_of(uri: str) -> str:
    """The user part of a sip, sips or tel URI, its parameters and password cut off; empty when there is none."""
    found = _USER.match(uri)
    user = (found.group(1) or found.group(2) or "") if found else ""
    return _unescaped(user.partition(":")[0].partition(";")[0])


def redact(text: str) -> str:
    """The message without credentials and without the keys of its media."""
    lower = text.lower()  # most messages have neither, and looking for a word costs a tenth of the expression
    if "authorization" in lower or "authentication-info" in lower:
        text = _SECRET_HEADER.sub(r"\1\2\3 [redacted]", text)
    if any(word in lower for word in ("crypto", "key-mgmt", "ice-pwd", "k=")):
        text = _SECRET_SDP.sub(r"\1\2[redacted]", text)
    return text


def _unescaped(text: str) -> str:
    return re.sub(r"%([0-9A-Fa-f]{2})", lambda found: chr(int(found.group(1), 16)), text) if "%" in text else text
