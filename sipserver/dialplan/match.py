"""The keys of a route's `match` and how they are compared. All keys must hold, and of a list one item.

Items with `!` in front exclude. What calendars hold is `calendars`' business, how hours are read `hours`'.
"""

from __future__ import annotations

import hashlib
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address, ip_network
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field

from sipserver.dialplan import globs, hours
from sipserver.dialplan.agents import Strict, Text
from sipserver.dialplan.calendars import Calendar
from sipserver.dialplan.facts import CallFacts
from sipserver.dialplan.globs import SOME, Globs, Some, bare, chosen, listed, takes

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_LOAD = re.compile(r"(<=|>=|<|>)\s*([0-9]+(?:\.[0-9]+)?)\s*%?")


def _network(text: str) -> str:
    try:
        ip_network(bare(text), strict=False)
    except ValueError:
        raise ValueError(f"`{text}` is neither an address nor a network such as 192.0.2.0/24") from None
    return text


def _hours(text: str) -> str:
    hours.parse(bare(text))
    return text


def _load(text: str) -> str:
    found = _LOAD.fullmatch(text.strip())
    if found is None or float(found[2]) > 100:
        raise ValueError(f"`{text}` is no load: write `< 80` or `>= 80` (percent of the places that are taken)")
    return text


Network = Annotated[Text, AfterValidator(_network)]
Transport = Literal["udp", "tcp", "tls", "ws", "wss"]
Direction = Literal["inbound", "outbound"]
Span = Annotated[Text, AfterValidator(_hours)]
Load = Annotated[Text, AfterValidator(_load)]

Networks = Annotated[tuple[Network, ...], SOME, BeforeValidator(listed, json_schema_input_type=Network | Some[Network])]
Transports = Annotated[
    tuple[Transport, ...], SOME, BeforeValidator(listed, json_schema_input_type=Transport | Some[Transport])
]
Directions = Annotated[
    tuple[Direction, ...], SOME, BeforeValidator(listed, json_schema_input_type=Direction | Some[Direction])
]
Spans = Annotated[tuple[Span, ...], SOME, BeforeValidator(listed, json_schema_input_type=Span | Some[Span])]
"""One value or a list of them."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a match looks at beside the call. local: the time in the plan's zone. calendars: the plan's, by name.
    rollout: what the places of callers are drawn by, with `percent`: another text is another draw.
    """

    local: datetime
    calendars: Mapping[str, Calendar] = field(default_factory=dict)
    rollout: str = ""


class Test(NamedTuple):
    """One key of a match and one call. wanted: what the key asks for. seen: what there was instead, or just that."""

    key: str
    wanted: tuple[str, ...]
    seen: str
    holds: bool

    def __str__(self) -> str:
        verb = "matches" if self.holds else "does not match"
        return f"{self.key} {' or '.join(self.wanted)} {verb} {self.seen or 'nothing'}"


class Match(Strict):
    """Which calls a route takes. Without keys: all.

    to, from: glob on the user part of the request URI and of the From header. to_host: glob on the host of the request
    URI. headers: header name -> glob. source: address or network (CIDR) of the peer. transport: udp, tcp, tls, ws, wss.
    trunk: glob on the trunk's name. direction: inbound or outbound. hours: `weekdays`, `weekends`, `always` or
    `mon-fri 09:00-17:00`, in the plan's `timezone`. calendar: names of the file's calendars. percent: of the callers;
    one caller always gets the same. load: `< 80`, percent of the process' places that are taken.
    Globs, networks, hours and calendars take `!` in front: not these.
    """

    to: Globs | None = None
    from_: Globs | None = Field(default=None, alias="from")
    to_host: Globs | None = None
    headers: dict[Text, Globs] = Field(default_factory=dict)
    source: Networks | None = None
    transport: Transports | None = None
    trunk: Globs | None = None
    direction: Directions | None = None
    hours: Spans | None = None
    calendar: Globs | None = None
    percent: float | None = Field(default=None, ge=0, le=100)
    load: Load | None = None

    def miss(self, facts: CallFacts, setting: Setting) -> str:
        """Why a call does not match: the first key that fails, with what it saw; empty when all hold."""
        for test in self.tests(facts, setting):
            if not test.holds:
                return str(test)
        return ""

    def holds(self, facts: CallFacts, setting: Setting) -> bool:
        """Whether a call matches."""
        return all(test.holds for test in self.tests(facts, setting))

    def why(self) -> str:
        """The match in one line: `to=+4930* hours=weekdays`, or `always`."""
        return " ".join(f"{key}={'|'.join(wanted)}" for key, wanted in self._pairs() if wanted) or "always"

    def tests(self, facts: CallFacts, setting: Setting) -> Iterator[Test]:
        """Every key that the match has, compared with a call; cheap and telling ones first."""
        if self.to:
            yield Test("to", self.to, facts.to_user, takes(self.to, facts.to_user))
        if self.from_:
            yield Test("from", self.from_, facts.from_user, takes(self.from_, facts.from_user))
        if self.to_host:
            yield Test("to_host", self.to_host, facts.to_host, takes(self.to_host, facts.to_host, fold=True))
        for name, patterns in self.headers.items():
            yield _there(f"header {name}", patterns, facts.headers.get(name.lower()))
        if self.source:
            held = chosen(self.source, lambda network: _in_network(network, facts.source_host))
            yield Test("source", self.source, facts.source_host, held)
        if self.transport:
            yield Test("transport", self.transport, facts.transport, facts.transport in self.transport)
        if self.trunk:
            yield _there("trunk", self.trunk, facts.trunk or None)
        if self.direction:
            yield Test("direction", self.direction, facts.direction, facts.direction in self.direction)
        yield from self._tests_of_the_moment(facts, setting)

    def _tests_of_the_moment(self, facts: CallFacts, setting: Setting) -> Iterator[Test]:
        local = setting.local
        if self.hours:
            seen = f"{hours.DAYS[local.weekday()]} {local:%H:%M} {local.tzname() or ''}".strip()
            yield Test("hours", self.hours, seen, chosen(self.hours, lambda span: hours.parse(span).open_at(local)))
        if self.calendar:
            found = {name: setting.calendars[name].found(local.date()) for name in map(bare, self.calendar)}
            names = ", ".join(dict.fromkeys(filter(None, found.values())))
            seen = f"{local:%Y-%m-%d}" + (f" ({names})" if names else "")
            yield Test("calendar", self.calendar, seen, chosen(self.calendar, lambda name: bool(found[name])))
        if self.percent is not None:
            place = draw(setting.rollout, facts.from_user)
            yield Test("percent", (f"{self.percent:g}",), f"this caller's place {place:g}", place < self.percent)
        if self.load is not None:
            yield Test("load", (self.load,), f"{facts.load:g} %", _compares(self.load, facts.load))

    def _pairs(self) -> Iterator[tuple[str, Iterable[str] | None]]:
        yield from (("to", self.to), ("from", self.from_), ("to_host", self.to_host))
        yield from ((f"headers.{name}", patterns) for name, patterns in self.headers.items())
        yield from (("source", self.source), ("transport", self.transport), ("trunk", self.trunk))
        yield from (("direction", self.direction), ("hours", self.hours), ("calendar", self.calendar))
        yield "percent", None if self.percent is None else (f"{self.percent:g}",)
        yield "load", None if self.load is None else (self.load,)


def draw(rollout: str, caller: str) -> float:
    """The place of a caller from 0 to 99.99, always the same and even over all callers; `percent` takes those below.

    Callers without a number are one caller.
    """
    digest = hashlib.sha256(f"{rollout}\0{caller}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 10_000 / 100


def _there(key: str, patterns: tuple[str, ...], value: str | None) -> Test:
    """A value that may be missing: then nothing hits, not even `*`."""
    held = chosen(patterns, lambda glob: value is not None and globs.fits(glob, value, fold=True))
    return Test(key, patterns, value or "", held)


def _compares(load: str, percent: float) -> bool:
    found = _LOAD.fullmatch(load.strip())
    return found is not None and _COMPARE[found[1]](percent, float(found[2]))


def _in_network(network: str, host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address) in ip_network(network, strict=False)
