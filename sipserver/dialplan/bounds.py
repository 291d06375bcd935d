"""What a dialplan that comes from outside may do: no more than the operator allowed. Pure.

A dialplan decides which calls its tenant gets, whom they reach, which files and which environment variables are read,
and which servers are told. Owns which of its fields are dangerous, and what counts as narrower. Refuses to know who
sends a plan: `beyond` is asked about those that do not come from the operator.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from sipserver.dialplan import globs, targets
from sipserver.dialplan.globs import NOT, bare
from sipserver.dialplan.match import Match
from sipserver.dialplan.plan import Plan
from sipserver.dialplan.steps import Decide, Step, Stream
from sipserver.errors import DialplanError
from sipserver.yaml_check import problem_at
from sipserver.yaml_file import KeyPath

_LISTED = ("to", "from_", "to_host", "trunk", "source", "transport", "direction")
"""What a match may ask for, other than headers and what changes with time."""
_FOLDED = ("to_host", "trunk")
_OUTBOUND = ("outbound",)


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the operator's settings say of a tenant; what is empty is taken from the operator's own last dialplan.

    numbers: globs of what is called. targets: globs, as in a dialplan. hosts: globs of servers' names.
    """

    numbers: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


def beyond(plan: Plan, allowed: Allowed, before: Plan | None) -> list[DialplanError]:
    """Everything that a plan may not have. before: the operator's own last one; None: the operator wrote none."""
    return [
        problem_at(plan.document, at, reason, DialplanError)
        for at, reason in (
            *_routes(plan, allowed, before),
            *_targets(plan, allowed, before),
            *_servers(plan, allowed, before),
        )
    ]


def sounds_of(plan: Plan | None) -> frozenset[str]:
    """The sound files that a plan names."""
    if plan is None:
        return frozenset()
    return frozenset(name for _, step in plan.parts() for key in step.sounds if (name := getattr(step, key)))


def narrower(match: Match, than: Match) -> bool:
    """Whether every call that a match takes is one that the other takes, whatever the time and the load. May say no
    where it is so, never yes where it is not.
    """
    for key in _LISTED:
        inner, outer = getattr(match, key), getattr(than, key)
        if outer and not within(inner, outer, fold=key in _FOLDED, may_lack=key == "trunk"):
            return False
    headers = {name.lower(): patterns for name, patterns in match.headers.items()}
    return all(
        within(headers.get(name.lower()), patterns, fold=True, may_lack=True) for name, patterns in than.headers.items()
    )


def within(
    inner: Collection[str] | None, outer: Collection[str], *, fold: bool = False, may_lack: bool = False
) -> bool:
    """Whether a list of globs takes nothing that the other one does not take. inner: None takes everything. may_lack:
    a call need not have what is compared; then `*` does not take it, and a list that only excludes does.
    """
    wanted, barred = _sorted(inner or ())
    roofs, outer_barred = _sorted(outer)
    if not outer_barred <= barred or (may_lack and roofs and not wanted):
        return False
    return all(any(_covers(roof, glob, fold) for roof in roofs or ["*"]) for glob in wanted or ["*"])


def _sorted(patterns: Collection[str]) -> tuple[list[str], set[str]]:
    """Those without and those with `!`, which is taken off."""
    barred = {bare(pattern) for pattern in patterns if pattern.startswith(NOT)}
    return [pattern for pattern in patterns if not pattern.startswith(NOT)], barred


@lru_cache(maxsize=4096)
def _covers(roof: str, glob: str, fold: bool) -> bool:
    """Whether a glob takes all that another takes: where that one has `*` this one has `*`, too."""
    if roof == glob:
        return True
    if "[" in glob or "[" in roof:
        return False
    parts = [".*" if sign == "*" else "[^*]" if sign == "?" else re.escape(sign) for sign in re.sub(r"\*+", "*", roof)]
    return re.fullmatch("".join(parts), glob, re.DOTALL | (re.IGNORECASE if fold else 0)) is not None


Wrong = Iterator[tuple[KeyPath, str]]


def _routes(plan: Plan, allowed: Allowed, before: Plan | None) -> Wrong:
    """A route takes calls from whoever stands behind it, other tenants included."""
    if allowed.numbers:
        roofs = [Match(to=allowed.numbers)]
    else:
        roofs = [route.match for route in (before.routes if before is not None else ())]
    inbound = [roof for roof in roofs if roof.direction != _OUTBOUND]
    for index, route in enumerate(plan.routes):
        if route.match.direction == _OUTBOUND or any(narrower(route.match, roof) for roof in inbound):
            continue
        yield (
            ("routes", index, "match"),
            f"takes calls that are not yours: {_numbers(inbound)}; ask the operator for more (`tenants.NAME.numbers`)",
        )


def _numbers(inbound: Sequence[Match]) -> str:
    if not inbound:
        return "you may have none but outbound ones (`direction: outbound`)"
    return f"you may have {' or '.join(roof.why() for roof in inbound)}"


def _targets(plan: Plan, allowed: Allowed, before: Plan | None) -> Wrong:
    """Calls cost money. A plan without `targets` allows what stands in it."""
    patterns = allowed.targets or (before.targets if before is not None else ())
    if patterns:
        told = f"calls may go to {', '.join(patterns)}"
        if plan.targets and not within(plan.targets, patterns):
            yield ("targets",), f"allows more than the operator does: {told}; what has `!` there needs it here, too"
    else:
        told = "calls may go where they go in the operator's dialplan" if before is not None else "calls may go nowhere"
        known = {to for _, to in before.callees()} if before is not None else set()
        if plan.targets:
            if not set(plan.targets) <= {to for to in known if not set(to) & set("*?[!")}:
                yield ("targets",), f"allows more than the operator does: {told} (`tenants.NAME.targets`)"
            return
    if plan.targets:
        return
    for at, to in plan.callees():
        if not (targets.allowed(patterns, to) if patterns else to in known):
            yield at, f"{told}; ask the operator for more (`tenants.NAME.targets`)"


def _servers(plan: Plan, allowed: Allowed, before: Plan | None) -> Wrong:
    """Servers hear what is said, and stand perhaps where only this machine gets to."""
    known = {url for _, url in _urls(before)} if before is not None else set()
    hosts = {_host(url) for url in known} - {""}
    for at, url in _urls(plan):
        host = _host(url)
        if url in known or (host and (host in hosts or any(_fits(glob, host) for glob in allowed.hosts))):
            continue
        yield at, "goes to a server that the operator has not allowed (`tenants.NAME.hosts`)"
    secrets = set(_secrets(before))
    for at, step in plan.parts():
        for given in _given(step):
            if given not in secrets:
                yield at, f"takes the server's environment variable {given[1]}, which only the operator may give away"


def _secrets(plan: Plan | None) -> Iterator[tuple[str, str]]:
    """Servers and the environment variables that they are given."""
    for _, step in plan.parts() if plan is not None else ():
        yield from _given(step)


def _given(step: Step) -> Iterator[tuple[str, str]]:
    """The server of a step and the environment variables that it is given."""
    if isinstance(step, Stream):
        names: Sequence[str] = (*step.headers_env.values(), step.sign_env)
    elif isinstance(step, Decide):
        names = (step.secret_env,)
    else:
        return
    for name in filter(None, names):
        yield _host(step.url), name


def _urls(plan: Plan) -> Iterator[tuple[KeyPath, str]]:
    for at, step in plan.parts():
        if isinstance(step, Stream | Decide):
            yield (*at, "url"), step.url
    for name, agent in plan.agents.items():
        for index, tool in enumerate(agent.http_tools):
            yield ("agents", name, "http_tools", index, "url"), tool.url


def _host(url: str) -> str:
    """`scheme://host:port`, lower case; empty for what different programs may read differently."""
    try:
        found = urlsplit(url)
        port = found.port
    except ValueError:
        return ""
    place = found.netloc
    if not place or set(place) & set("\\@{}%") or "\\" in url or not url.isascii() or not url.isprintable():
        return ""
    return f"{found.scheme.lower()}://{(found.hostname or '').lower()}{'' if port is None else f':{port}'}"


def _fits(glob: str, host: str) -> bool:
    """A glob of the settings with a server: of its name, or name and port."""
    place = host.partition("://")[2]
    return globs.fits(glob, place, fold=True) or globs.fits(glob, place.rpartition(":")[0], fold=True)
