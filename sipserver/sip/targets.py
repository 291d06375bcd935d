"""Whether a target is on an allow-list: globs on the user, on `user@host`, or on the number of a tel URI. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from sipserver.sip.message import uri_of, user_of


def allowed(globs: Iterable[str], target: str) -> bool:
    """target: a URI or the value of Refer-To, with or without brackets, parameters and headers. Case counts only in the
    user part (RFC 3261, section 19.1.4). An empty list allows nobody.
    """
    uri = uri_of(target).partition("?")[0]
    user = user_of(uri)
    host = uri.partition(":")[2].rpartition("@")[2].partition(";")[0].lower()
    return any(fnmatchcase(seen, glob) for glob in globs for seen in (user, f"{user}@{host}") if seen)
