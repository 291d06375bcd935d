"""Whom a tenant's calls may reach: what counts as a target, and what `targets` of the file allows. Pure.

Refuses to know which trunk carries a number; trunks have rules of their own (`allow`, `deny`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

from sipserver.dialplan import globs, template
from sipserver.dialplan.plan import Plan

_SPACED = re.compile(r"\+?[0-9][0-9 ()/-]*")
_SEPARATORS = str.maketrans("", "", " ()/-")
_TARGET = re.compile(
    r"(?:(?P<scheme>sips?|tel):)?"
    r"(?P<user>(?:[A-Za-z0-9_.!~*'()&=+$,/#-]|%[0-9A-Fa-f]{2})+)"
    r"(?:@(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?P<port>:[0-9]{1,5})?)?"
    r"(?:;(?:transport=(?:udp|tcp|tls)|user=phone))*",
    re.IGNORECASE,
)
FORMS = "a number, a user, or a SIP URI such as sip:100@pbx.example.com"


@dataclass(frozen=True, slots=True)
class Callee:
    """user: decoded; a number without separators. host: lower case, with the port if one was said; empty without."""

    user: str
    host: str = ""

    def fits(self, glob: str) -> bool:
        """A glob with `@` is compared with user and host, one without only with a target that has no host."""
        user, at, host = glob.rpartition("@")
        if not at:
            return not self.host and globs.fits(glob, self.user)
        return bool(self.host) and globs.fits(user, self.user) and globs.fits(host, self.host, fold=True)

    def barred_by(self, glob: str) -> bool:
        """As `fits`, for a glob that had `!` in front: one without `@` is compared with the user of any host."""
        return self.fits(glob) or ("@" not in glob and globs.fits(glob, self.user))


@lru_cache(maxsize=4096)
def parse(text: str) -> Callee | None:
    """None for what is no target, and for URIs that would take a call elsewhere than they say (maddr, headers)."""
    plain = text.strip()
    number = plain[4:] if plain[:4].lower() == "tel:" else plain
    if _SPACED.fullmatch(number):
        return Callee(number.translate(_SEPARATORS))
    found = _TARGET.fullmatch(plain)
    if found is None or (found["scheme"] and bool(found["host"]) is (found["scheme"].lower() == "tel")):
        return None
    user = unquote(found["user"])
    if not user.isprintable() or set(user) & set(" @<>\"'\\;?:"):
        return None
    return Callee(user, (found["host"] or "").lower() + (found["port"] or ""))


def allowed(patterns: tuple[str, ...], to: str) -> bool:
    """Whether a list of globs, some of them perhaps with `!`, allows a target."""
    callee = parse(to)
    return callee is not None and globs.chosen(patterns, callee.fits, callee.barred_by)


def allows_target(plan: Plan, to: str) -> bool:
    """Whether a plan lets a call go there. to: with its variables filled in. Never raises.

    A plan that has no `targets` allows what stands in it without variables.
    """
    if plan.targets:
        return allowed(plan.targets, to)
    callee = parse(to)
    return callee is not None and any(
        parse(written) == callee for _path, written in plan.callees() if not template.names(written)
    )
