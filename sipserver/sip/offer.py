"""The facts of a leg, fixed when it arrives or is placed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sipserver.sip.message import SipText, uri_of, user_of

TRUNK_HEADER, SOURCE_HEADER = "x-sipserver-trunk", "x-sipserver-source"
"""What our edge tells about a call. Never shown as a header of the caller, believed or not."""

_MECHANICS = frozenset({
    "via", "from", "to", "call-id", "cseq", "contact", "max-forwards", "content-length", "content-type",
    "content-disposition",
    "route", "record-route", "authorization", "proxy-authorization", "session-expires", "min-se", "accept",
    "accept-encoding", "accept-language", "allow", "supported", "require", "mime-version", "timestamp", "date",

    "rack", "rseq", TRUNK_HEADER, SOURCE_HEADER,
})  # fmt: skip
_NOTHING = SipText("", (), "")


@dataclass(frozen=True, slots=True)
class SipOffer:
    """Satisfies `calls.leg.Offer`. headers: what is not dialog mechanics, e.g. p-asserted-identity, diversion,
    user-to-user, x-...; repeated ones joined by ", ". has_sdp: False for a late offer. trunk: by which of our trunks
    the call came, as the edge tells; empty without one.
    """

    direction: str
    from_uri: str
    from_user: str
    to_uri: str
    to_user: str
    source: str
    transport: str
    sip_call_id: str
    headers: Mapping[str, str]
    has_sdp: bool = True
    trunk: str = ""

    @classmethod
    def of_invite(cls, message: SipText, source: str, *, behind_edge: bool = False) -> SipOffer:
        """From an INVITE that came in. source: host:port it came from. behind_edge: believe what the edge tells."""
        told = message if behind_edge else _NOTHING
        from_uri = uri_of(message.header("from"))
        return cls(
            direction="inbound",
            from_uri=from_uri,
            from_user=user_of(from_uri),
            to_uri=message.request_uri,
            to_user=user_of(message.request_uri),
            source=told.header(SOURCE_HEADER) or source,
            transport=message.transport,
            sip_call_id=message.header("call-id"),
            headers=MappingProxyType(custom_headers(message)),
            has_sdp=message.has_sdp,
            trunk=told.header(TRUNK_HEADER),
        )

    @classmethod
    def of_dial(
        cls, uri: str, from_uri: str, sip_call_id: str, headers: Mapping[str, str], trunk: str = ""
    ) -> SipOffer:
        """From a call that we place. source: what the URI names, it is not resolved here."""
        target = uri_of(uri)
        host = target.partition(":")[2].rpartition("@")[2].partition(";")[0].partition("?")[0]
        transport = "tcp" if "transport=tcp" in target.lower() else "udp"
        return cls(
            direction="outbound",
            from_uri=uri_of(from_uri),
            from_user=user_of(uri_of(from_uri)),
            to_uri=target,
            to_user=user_of(target),
            source=host,
            transport=transport,
            sip_call_id=sip_call_id,
            headers=MappingProxyType({name.lower(): value for name, value in headers.items()}),
            trunk=trunk,
        )


def custom_headers(message: SipText) -> dict[str, str]:
    """All headers that do not belong to the dialog's own mechanics, by lower-case name."""
    found: dict[str, str] = {}
    for name, value in message.headers:
        if name not in _MECHANICS:
            found[name] = f"{found[name]}, {value}" if name in found else value
    return found
