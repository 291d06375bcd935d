"""What is known about a call when it arrives: the facts that routes match and texts may name. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

_URI = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):)?"
    r"(?:(?P<user>[^@>]*)@)?"
    r"(?P<host>\[[^\]]*\]|[^:;?>\s]*)"
)
_QUOTED = re.compile(r'\A\s*"(?:[^"\\]|\\.)*"', re.DOTALL)
"""A display name, which may say anything, addresses too."""

BUILT_IN = frozenset(
    {"from", "from_host", "to", "to_host", "source", "transport", "trunk", "direction", "tenant", "call_id"}
)
"""Variables that every call has; a dialplan reads but does not set them."""


@dataclass(frozen=True, slots=True)
class CallFacts:
    """to_user, to_host: of the request URI. source: `host:port` or host of the peer. headers: by lower-case name.

    trunk: name of the trunk; empty without one. direction: inbound | outbound. load: percent of the process' places
    that are taken, 0 to 100.
    """

    to_user: str
    to_host: str = ""
    from_user: str = ""
    from_host: str = ""
    source: str = ""
    transport: str = "udp"
    headers: Mapping[str, str] = field(default_factory=dict)
    trunk: str = ""
    direction: str = "inbound"
    load: float = 0.0

    @classmethod
    def of(
        cls,
        to_uri: str,
        from_uri: str,
        source: str = "",
        transport: str = "udp",
        headers: Mapping[str, str] | None = None,
        *,
        trunk: str = "",
        direction: str = "inbound",
        load: float = 0.0,
    ) -> CallFacts:
        """From SIP or tel URIs, with or without name and angle brackets. Never raises: other text counts as a user."""
        to_user, to_host = split_uri(to_uri)
        from_user, from_host = split_uri(from_uri)
        lower = {name.lower(): value for name, value in (headers or {}).items()}
        return cls(
            to_user, to_host, from_user, from_host, source, transport.lower(), lower, trunk, direction.lower(), load
        )

    @property
    def source_host(self) -> str:
        """The peer's address without port and brackets."""
        if self.source.startswith("["):
            return self.source[1:].partition("]")[0]
        host, colon, port = self.source.rpartition(":")
        return host if colon and port.isdigit() and ":" not in host else self.source

    def variables(self) -> dict[str, str]:
        """`from`, `to`, their hosts, `source`, `transport`, `trunk`, `direction` and `header.<lower-case name>`."""
        return {
            "from": self.from_user,
            "from_host": self.from_host,
            "to": self.to_user,
            "to_host": self.to_host,
            "source": self.source_host,
            "transport": self.transport,
            "trunk": self.trunk,
            "direction": self.direction,
        } | {f"header.{name.lower()}": value for name, value in self.headers.items()}


def split_uri(uri: str) -> tuple[str, str]:
    """User part (decoded, without its parameters) and lower-case host of a URI; a bare `demo` or `+4930` is a user."""
    plain = _QUOTED.sub("", uri, count=1)
    name, bracket, rest = plain.partition("<")
    inner = rest.partition(">")[0] if bracket and not set(name) & set(':@"') else plain
    match = _URI.match(inner.strip())
    if match is None:
        return "", ""
    user, host = match["user"], match["host"]
    if user is None and (match["scheme"] or "").lower() not in ("sip", "sips"):
        user, host = host, ""
    user = (user or "").partition(":")[0].partition(";")[0]
    return unquote(user), host.strip("[]").lower()
