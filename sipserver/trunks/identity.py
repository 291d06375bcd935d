"""Who we say that calls, and which headers pass between a dialplan and a peer. Pure.

Owns From, P-Asserted-Identity (RFC 3325) and Privacy (RFC 3323) of calls that we place, and the header allow-lists of
both directions. Nothing that leaves here contains a line break or another control character: what a caller, a program
or a model put into a name or a header cannot begin a header of its own. Refuses to know numbers' rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import quote

from sipserver.trunks import numbers
from sipserver.trunks.settings import TrunkSettings

ANONYMOUS_URI = "sip:anonymous@anonymous.invalid"
ANONYMOUS = "Anonymous"

_CONTROL = re.compile(r"[\x00-\x1f\x7f\x80-\x9f\u2028\u2029]+")
_TOKEN = re.compile(r"[A-Za-z0-9.!%*_+`'~-]+")
_LONGEST_VALUE = 1024
_USER_SAFE = "-_.!~*'()&=+$,;?/"
"""RFC 3261, section 25.1: unreserved and user-unreserved."""

OURS = frozenset({
    "via", "v", "from", "f", "to", "t", "call-id", "i", "cseq", "contact", "m", "max-forwards", "content-length", "l",
    "content-type", "c", "content-disposition", "content-encoding", "e", "route", "record-route", "path",
    "authorization", "proxy-authorization", "www-authenticate", "proxy-authenticate", "authentication-info",
    "session-expires", "x", "min-se", "require", "proxy-require", "supported", "k", "unsupported", "allow", "accept",
    "mime-version", "expires", "min-expires", "rack", "rseq", "replaces", "refer-to", "r", "referred-by", "b",
    "join", "target-dialog", "event", "o", "allow-events", "u", "subscription-state", "privacy",
    "p-asserted-identity", "p-preferred-identity", "identity", "identity-info",
})  # fmt: skip
"""Headers that belong to the dialog or say who calls: PJSIP and the trunk's settings set them, and nobody else. So it
is with those of our own edge (`X-Sipserver-...`).
"""


@dataclass(frozen=True, slots=True)
class Identity:
    """uri, display: of From. headers: those that say more about the caller."""

    uri: str
    display: str
    headers: Mapping[str, str]


def identity(trunk: TrunkSettings, own_user: str, from_user: str = "", from_display: str = "") -> Identity:
    """The caller that the trunk's peer is shown. own_user: shown where neither the call nor the trunk names somebody.

    from_user: a number or user that the call wants shown; `anonymous` asks to be hidden. What the trunk's `allow` does
    not name is replaced, with its display, by the trunk's own.
    """
    caller = trunk.caller
    hidden = caller.privacy == "id" or from_user.lower() == "anonymous"
    wanted = "" if from_user.lower() == "anonymous" else from_user
    if wanted and not _is_allowed(wanted, trunk):
        wanted = from_display = ""
    user = numbers.shown(wanted or caller.user or own_user, trunk)
    display = clean(from_display if from_display and not hidden else caller.display)
    uri = f"sip:{quote(clean(user), safe=_USER_SAFE)}@{trunk.from_domain}"
    headers = {"P-Asserted-Identity": f"{_quoted(display)}<{uri}>"} if caller.asserted else {}
    if not hidden:
        return Identity(uri, display, headers)
    return Identity(ANONYMOUS_URI, ANONYMOUS, {**headers, "Privacy": "id"})


def let_out(headers: Mapping[str, str], globs: Iterable[str]) -> dict[str, str]:
    """The headers that a call may send: named by a glob, none of `OURS`, with a name that RFC 3261 permits; their
    values on one line and at most 1024 characters long.
    """
    return {
        name: clean(value)[:_LONGEST_VALUE]
        for name, value in headers.items()
        if _TOKEN.fullmatch(name) and not _is_ours(name) and _matches(name, globs)
    }


def let_in(headers: Mapping[str, str], globs: Iterable[str]) -> dict[str, str]:
    """The headers of a peer that dialplans may see. headers: by lower-case name."""
    return {name: value for name, value in headers.items() if _matches(name, globs)}


def clean(text: str) -> str:
    """On one line: each run of control characters becomes one space."""
    return _CONTROL.sub(" ", text).strip()


def address(uri: str, display: str) -> str:
    """`"display" <uri>`, for a From header."""
    return f"{_quoted(clean(display))}<{uri}>"


def _is_allowed(user: str, trunk: TrunkSettings) -> bool:
    forms = {user, numbers.shown(user, trunk), numbers.shown(user, _in_plus_form(trunk))}
    return any(fnmatchcase(form, glob) for form in forms for glob in trunk.caller.allow)


def _in_plus_form(trunk: TrunkSettings) -> TrunkSettings:
    return trunk.model_copy(update={"number_format": "plus"})


def _matches(name: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(name.lower(), glob.lower()) for glob in globs)


def _is_ours(name: str) -> bool:
    return name.lower() in OURS or name.lower().startswith("x-sipserver-")


def _quoted(display: str) -> str:
    """RFC 3261, section 25.1: quoted-string."""
    escaped = display.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}" ' if escaped else ""
