"""The keys of a route's `match` and how they are compared. All keys must hold, and of a list one item."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from fnmatch import translate
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

from sipserver.dialplan import hours
from sipserver.dialplan.agents import Strict, Text
from sipserver.dialplan.facts import CallFacts

_T = TypeVar("_T")


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,)


def _network(text: str) -> str:
    try:
        ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"`{text}` is neither an address nor a network such as 192.0.2.0/24") from None
    return text


def _hours(text: str) -> str:
    hours.parse(text)
    return text


Glob = Annotated[Text, Field(min_length=1, description="`*` is any text, `?` one character")]
Network = Annotated[Text, AfterValidator(_network)]
Transport = Literal["udp", "tcp", "tls", "ws", "wss"]
Span = Annotated[Text, AfterValidator(_hours)]

_SOME = Field(min_length=1)
_Some = Annotated[list[_T], _SOME]
Globs = Annotated[tuple[Glob, ...], _SOME, BeforeValidator(_listed, json_schema_input_type=Glob | _Some[Glob])]
Networks = Annotated[
    tuple[Network, ...], _SOME, BeforeValidator(_listed, json_schema_input_type=Network | _Some[Network])
]
Transports = Annotated[
    tuple[Transport, ...], _SOME, BeforeValidator(_listed, json_schema_input_type=Transport | _Some[Transport])
]
Spans = Annotated[tuple[Span, ...], _SOME, BeforeValidator(_listed, json_schema_input_type=Span | _Some[Span])]
"""One value or a list of them."""


class Match(Strict):
    """Which calls a route takes. Without keys: all.

    to, from: glob on the user part of the request URI and of the From header. to_host: glob on the host of the request
    URI. headers: header name -> glob. source: address or network (CIDR) of the peer. transport: udp, tcp, tls, ws, wss.
    hours: `weekdays`, `weekends`, `always` or `mon-fri 09:00-17:00`, in the plan's `timezone`.
    """

    to: Globs | None = None
    from_: Globs | None = Field(default=None, alias="from")
    to_host: Globs | None = None
    headers: dict[Text, Globs] = Field(default_factory=dict)
    source: Networks | None = None
    transport: Transports | None = None
    hours: Spans | None = None

    def miss(self, facts: CallFacts, local: datetime) -> str:
        """Why a call does not match: the first key that fails, with what it saw; empty when all hold.

        local: the time in the plan's zone.
        """
        for key, wanted, seen, holds in self._tests(facts, local):
            if not holds:
                return f"{key} {' or '.join(wanted)} does not match {seen or 'nothing'}"
        return ""

    def why(self) -> str:
        """The match in one line: `to=+4930* hours=weekdays`, or `always`."""
        pairs = [
            ("to", self.to),
            ("from", self.from_),
            ("to_host", self.to_host),
            *((f"headers.{name}", globs) for name, globs in self.headers.items()),
            ("source", self.source),
            ("transport", self.transport),
            ("hours", self.hours),
        ]
        return " ".join(f"{key}={'|'.join(wanted)}" for key, wanted in pairs if wanted) or "always"

    def _tests(self, facts: CallFacts, local: datetime) -> Iterator[tuple[str, Iterable[str], str, bool]]:
        if self.to:
            yield "to", self.to, facts.to_user, _any_glob(self.to, facts.to_user)
        if self.from_:
            yield "from", self.from_, facts.from_user, _any_glob(self.from_, facts.from_user)
        if self.to_host:
            yield "to_host", self.to_host, facts.to_host, _any_glob(self.to_host, facts.to_host, fold=True)
        for name, globs in self.headers.items():
            value = facts.headers.get(name.lower())
            yield f"header {name}", globs, value or "", value is not None and _any_glob(globs, value, fold=True)
        if self.source:
            yield "source", self.source, facts.source_host, _in_networks(self.source, facts.source_host)
        if self.transport:
            yield "transport", self.transport, facts.transport, facts.transport in self.transport
        if self.hours:
            seen = f"{hours.DAYS[local.weekday()]} {local:%H:%M} {local.tzname() or ''}".strip()
            yield "hours", self.hours, seen, any(hours.parse(span).open_at(local) for span in self.hours)


def _any_glob(globs: Iterable[str], value: str, *, fold: bool = False) -> bool:
    return any(_compiled(glob, fold).match(value) for glob in globs)


@lru_cache(maxsize=65_536)
def _compiled(glob: str, fold: bool) -> re.Pattern[str]:
    return re.compile(translate(glob), re.IGNORECASE if fold else 0)


def _in_networks(networks: Iterable[str], host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in ip_network(text, strict=False) for text in networks)
