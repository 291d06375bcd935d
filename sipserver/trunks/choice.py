"""By which trunks, and in which order, somebody is called. Pure.

Owns the choice of a trunk, its failover list and the addresses of the INVITE. Refuses to know who asks, whether a call
gets through, and the rules of numbers and identities (`numbers.py`, `identity.py`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from sipserver.errors import NotAllowed
from sipserver.trunks import numbers
from sipserver.trunks.identity import identity, let_out
from sipserver.trunks.settings import TrunkSettings, host_of

_SCHEME = re.compile(r"(?i)^sips?:")
_SIP_URI = re.compile(
    r"(?i)^sip:(?:([^@\s<>\"?]+)@)?(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+)(?::([0-9]{1,5}))?((?:;[^\s<>\"?;]+)*)$"
)
_REFUSED_PARAMETERS = frozenset({"maddr", "method", "ttl", "lr"})
_DIALLED_SAFE = "+*"


@dataclass(frozen=True, slots=True)
class Route:
    """One INVITE that can be sent. uri: its request URI. trunk: empty when it goes by none. from_uri, from_display:
    empty for the cell's own address. headers: to send, the caller's identity included.
    """

    uri: str
    trunk: str = ""
    from_uri: str = ""
    from_display: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class TrunkChoice:
    """trunks: in the order of the settings, which is their preference. own_user: `sip.user`."""

    def __init__(self, trunks: Iterable[TrunkSettings], own_user: str) -> None:
        self._trunks = {trunk.name: trunk for trunk in trunks}
        self._own_user = own_user

    def routes(
        self,
        to: str,
        *,
        trunk: str = "",
        from_user: str = "",
        from_display: str = "",
        headers: Mapping[str, str] | None = None,
        down: Collection[str] = (),
    ) -> tuple[Route, ...]:
        """The ways to call `to`, a number or a `sip:` URI; never none.

        A number goes by the named trunk, or the first that carries it, and then by that trunk's failover list (and
        theirs), no trunk twice. A URI is called as it is written: by the named trunk or the one whose `host`,
        `registrar` or `domain` is its host, else by none; its user part must not be a number that the trunk refuses.
        down: names of trunks that do not answer or are not registered; they come last. Raises NotAllowed.
        """
        asked = dict(headers or {})
        if _SCHEME.match(to):
            carrier = self._named(trunk) if trunk else self.owner(to)
            _check_uri(to, carrier)
            if carrier is None:
                return (Route(to, headers=let_out(asked, ("X-*", "User-to-User"))),)
            return (self._route(carrier, to, from_user, from_display, asked),)
        found = [
            self._route(carrier, _request_uri(carrier, number), from_user, from_display, asked)
            for carrier, number in self._carriers(to, trunk)
        ]
        return tuple(sorted(found, key=lambda route: route.trunk in down))  # sorted is stable

    def _named(self, name: str) -> TrunkSettings:
        trunk = self._trunks.get(name)
        if trunk is None:
            raise NotAllowed(f"no trunk is called {name}")
        if not trunk.places_calls:
            raise NotAllowed(f"the trunk {name} has no host: no calls are placed through it")
        return trunk

    def _carriers(self, to: str, name: str) -> list[tuple[TrunkSettings, str]]:
        if name:
            first = self._named(name)
            numbers.dialled(to, first)  # its refusal is the answer, whatever its failover would carry
        else:
            first = self._first(to)
        carriers = []
        for trunk in self._with_failover(first):
            try:
                carriers.append((trunk, numbers.dialled(to, trunk)))
            except NotAllowed:
                continue
        return carriers

    def _first(self, to: str) -> TrunkSettings:
        refusals = []
        for trunk in self._trunks.values():
            if trunk.places_calls:
                try:
                    numbers.dialled(to, trunk)
                except NotAllowed as refusal:
                    refusals.append(str(refusal))
                else:
                    return trunk
        if not refusals:
            raise NotAllowed("no trunk places calls: give one a host or a registrar, or call a sip: address")
        raise NotAllowed("; ".join(dict.fromkeys(refusals)))

    def _with_failover(self, first: TrunkSettings) -> list[TrunkSettings]:
        order: dict[str, TrunkSettings] = {}
        waiting = [first.name]
        while waiting:
            trunk = self._trunks.get(waiting.pop(0))
            if trunk is not None and trunk.places_calls and trunk.name not in order:
                order[trunk.name] = trunk
                waiting = [*trunk.failover, *waiting]
        return list(order.values())

    def owner(self, uri: str) -> TrunkSettings | None:
        """The trunk to which a `sip:` URI leads; None: none, or it is no such URI."""
        parts = _SIP_URI.match(uri)
        if parts is None:
            return None
        host, port = parts.group(2).lower(), parts.group(3)
        exact = f"{host}:{port}" if port else host
        placing = [trunk for trunk in self._trunks.values() if trunk.places_calls]
        named = [(trunk, {name.lower() for name in (trunk.host, trunk.registrar, trunk.domain)}) for trunk in placing]
        with_port = [trunk for trunk, names in named if exact in names]
        return next(iter([*with_port, *(trunk for trunk, names in named if host in map(host_of, names))]), None)

    def _route(
        self, trunk: TrunkSettings, uri: str, from_user: str, from_display: str, headers: Mapping[str, str]
    ) -> Route:
        shown = identity(trunk, self._own_user, from_user, from_display)
        sent = {**let_out(headers, trunk.headers_out), **shown.headers}
        return Route(uri, trunk.name, shown.uri, shown.display, sent)


def _request_uri(trunk: TrunkSettings, number: str) -> str:
    transport = "" if trunk.transport == "udp" else f";transport={trunk.transport}"
    return f"sip:{quote(number, safe=_DIALLED_SAFE)}@{trunk.target}{transport}"


def _check_uri(uri: str, trunk: TrunkSettings | None) -> None:
    """URI headers (`?`) and some parameters would steer the request somewhere else (RFC 3261, section 19.1.5)."""
    parts = _SIP_URI.match(uri)
    if parts is None:
        raise NotAllowed("only sip:user@host[:port][;transport=udp|tcp|tls] can be called, without URI headers")
    names = {parameter.partition("=")[0].lower() for parameter in parts.group(4).split(";") if parameter}
    if names & _REFUSED_PARAMETERS:
        raise NotAllowed(f"the URI parameter {min(names & _REFUSED_PARAMETERS)} may not be used")
    if trunk is not None and parts.group(1):
        numbers.check(unquote(parts.group(1)).partition(";")[0].partition(":")[0], trunk)
