"""The `trunks:` part of the settings: the peers that we take calls from and place calls through."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Codec = Literal["opus", "G722", "PCMA", "PCMU"]
Srtp = Literal["off", "offered", "required"]
Prefix = Annotated[str, Field(pattern=r"^\+?[0-9*#]+$")]
HostPort = Annotated[str, Field(pattern=r"^$|^(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?$")]
Glob = Annotated[str, Field(min_length=1)]


class DigestUser(BaseModel):
    """password_env: the environment variable that holds the password; it never stands in the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9_.!~*'()+-]+$")
    password_env: str


class TrunkLimits(BaseModel):
    """calls: at a time on all machines, both directions; 0: no limit. calls_per_s: new ones, at each edge or single
    server, for each direction.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    calls: int = Field(default=0, ge=0)
    calls_per_s: int = Field(default=0, ge=0)


class Credentials(BaseModel):
    """What answers the peer's 401 and 407. realm: the only realm whose challenge is answered; empty: the trunk's
    `domain`. password_env: the environment variable that holds the password.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    user: str = Field(min_length=1)
    password_env: str = Field(min_length=1)
    realm: str = ""


class Registration(BaseModel):
    """REGISTER at the peer. user: of the address that is registered; empty: that of the credentials.

    retry_s, retry_most_s: the first and the longest pause after a failure; the pause doubles in between.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    user: str = ""
    expires_s: int = Field(default=300, ge=30, le=86_400)
    retry_s: float = Field(default=5, gt=0)
    retry_most_s: float = Field(default=300, gt=0)


class CallerIdentity(BaseModel):
    """Who we say that calls. user, display: of From where a call does not say; empty: `sip.user`. allow: globs of
    numbers or users that a call may show; others are replaced by `user`. asserted: send P-Asserted-Identity (RFC 3325)
    with the same number; only to a peer that trusts us. privacy: `id` hides the caller (From anonymous, Privacy: id).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    user: str = ""
    display: str = ""
    allow: tuple[Glob, ...] = ("*",)
    asserted: bool = False
    privacy: Literal["none", "id"] = "none"


class TrunkSettings(BaseModel):
    """One peer: a carrier, a PBX, a group of phones.

    Inbound. A call belongs to the first trunk whose `sources` name its address; where a trunk has digest `users`, they
    must answer a challenge too, from these sources or, if there are none, from anywhere. refer_to: globs of users,
    numbers or `user@host` that the peer may transfer one of our calls to by REFER; empty: none (603). replaces: whether
    it may take over a call by INVITE with Replaces.

    tenants: whose the trunk is: only their routes are asked for its calls, and nobody else calls out by it; empty:
    everybody's. tenant_header: the header in which the peer names the tenant of each call, for peers that vouch for it.

    Outbound. host: `host[:port]` that calls go to; empty: the trunk places none, unless it has a `registrar`.
    registrar: where to register with `register`. outbound_proxy: first hop of both. domain: host part of From and of
    the registered address; empty: host of the registrar or of `host`. credentials: for the peer's challenges, never
    used in a dialog that the peer began. failover: trunks to try next when this one does not carry a call (transport
    failure, 408, 5xx). redirects: whether a 3xx is followed. keepalive_s: OPTIONS that often; 0: none.

    Numbers. country: ISO 3166 code of numbers without `+`; empty: they must be written with it. number_format: how the
    peer wants them: `plus` +4930..., `e164` 4930..., `national` 030..., `as_is`. allow, deny: prefixes in `+` form; a
    number that no `allow` names is refused when there are any, and the longest matching prefix decides. premium:
    without it premium-rate, shared-cost and satellite numbers are refused unless an `allow` names them.

    codecs: allowed ones in the order of our preference. srtp: SDES. `required` takes and offers RTP/SAVP with keys
    alone and never falls back to plain RTP (488); `offered` encrypts where the peer can, also RTP/AVP with crypto
    lines, and the record says when it could not; `off` refuses encrypted-only offers. In a fleet through the media
    relay.
    headers_in, headers_out: globs of header names that pass; a dialplan sees no other ones, and sends no other ones.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    sources: tuple[str, ...] = ()
    users: tuple[DigestUser, ...] = ()
    codecs: tuple[Codec, ...] = Field(default=("G722", "PCMA", "PCMU"), min_length=1)
    srtp: Srtp = "offered"
    limits: TrunkLimits = TrunkLimits()
    host: HostPort = ""
    registrar: HostPort = ""
    register_: Registration | None = Field(default=None, alias="register")
    outbound_proxy: HostPort = ""
    domain: HostPort = ""
    transport: Literal["udp", "tcp", "tls"] = "udp"
    credentials: Credentials | None = None
    caller: CallerIdentity = CallerIdentity()
    country: str = Field(default="", pattern=r"^([A-Z]{2})?$")
    number_format: Literal["plus", "e164", "national", "as_is"] = "plus"
    allow: tuple[Prefix, ...] = ()
    deny: tuple[Prefix, ...] = ()
    premium: bool = False
    headers_in: tuple[Glob, ...] = ("*",)
    headers_out: tuple[Glob, ...] = ("X-*", "User-to-User")
    keepalive_s: int = Field(default=0, ge=0)
    failover: tuple[str, ...] = ()
    redirects: bool = False
    tenants: tuple[str, ...] = ()
    tenant_header: str = Field(default="", pattern=r"^[A-Za-z0-9-]*$")
    refer_to: tuple[Glob, ...] = ()
    replaces: bool = False

    @field_validator("sources")
    @classmethod
    def _networks(cls, sources: tuple[str, ...]) -> tuple[str, ...]:
        for source in sources:
            try:
                ip_network(source)
            except ValueError as error:
                raise ValueError(f"{source!r} is not a network such as 192.0.2.0/24: {error}") from None
        return sources

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if not self.sources and not self.users and not self.places_calls:
            raise ValueError(
                "a trunk needs sources, users or a host: otherwise nobody can call through it, in neither direction"
            )
        if self.register_ is not None and not self.registrar:
            raise ValueError("register needs a registrar")
        if self.register_ is not None and not (self.register_.user or self.credentials):
            raise ValueError("register needs a user, its own or that of credentials")
        if self.number_format == "national" and not self.country:
            raise ValueError("number_format: national needs a country")
        return self

    def serves(self, tenant: str) -> bool:
        """Whether the tenant may call out by it."""
        return not self.tenants or tenant in self.tenants

    @property
    def places_calls(self) -> bool:
        return bool(self.host or self.registrar)

    @property
    def target(self) -> str:
        """`host[:port]` that calls go to."""
        return self.host or self.registrar

    @property
    def from_domain(self) -> str:
        """Host part of From and of the registered address; a port is there only if `domain` names one."""
        return self.domain or host_of(self.registrar or self.host)

    @property
    def realm(self) -> str:
        """The only realm whose challenge is answered; empty without credentials."""
        return (self.credentials.realm or self.from_domain) if self.credentials is not None else ""


def host_of(address: str) -> str:
    """`host[:port]` without the port; an IPv6 address keeps its brackets."""
    host, colon, port = address.rpartition(":")
    return host if colon and port.isdigit() and not address.endswith("]") else address
