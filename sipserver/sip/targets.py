"""Whether a target is on an allow-list: globs on the user, on `user@host`, or on the number of a tel URI. Pure.

PJSIP reads the target once more when it calls. So what could be read in two ways, or would take the call elsewhere than
user and host say, is on no list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from sipserver.sip.message import bracketed, user_of

_TARGET = re.compile(
    r"""
    sips?:
    (?:[A-Za-z0-9_.!~*'()&=+$,/%\#-]+@)?         # neither password nor parameters: `;rn=` names another number
    (?P<host>(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?)
    (?:;(?!maddr(?:[=;?]|\Z))[A-Za-z0-9_.!~*'()-]+(?:=[A-Za-z0-9_.!~*'()%\[\]/:&+$-]+)?)*
    (?:\?(?:Replaces|Require)=[^&@<>"\s]*(?:&(?:Replaces|Require)=[^&@<>"\s]*)*)?   # not Route (RFC 3261, 19.1.5)
    | tel:[0-9A-Fa-f*\#+().-]+(?:;[A-Za-z0-9_.!~*'()%\[\]/:&+$=-]+)*
    """,
    re.IGNORECASE | re.VERBOSE,
)


def allowed(globs: Iterable[str], target: str) -> bool:
    """target: a URI or the value of Refer-To, with or without display name, brackets, parameters and Replaces. Case
    counts only in the user part (RFC 3261, section 19.1.4). An empty list allows nobody.
    """
    inner = bracketed(target)
    uri = (target if inner is None else inner).strip()
    found = _TARGET.fullmatch(uri)
    user = user_of(uri)
    if found is None or "@" in user:
        return False
    seen = (user, f"{user}@{found['host'].lower()}") if found["host"] else (user,)
    return any(fnmatchcase(each, glob) for glob in globs for each in seen if each)
