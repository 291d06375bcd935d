"""Where webhooks may go: the guard against endpoints that would have us call our own network (SSRF).

Owns which URLs and which addresses are permitted, and the resolver that hands a connection no other address than one
that was checked. Refuses to send. A name is resolved and checked for every connection, so a name that changes its
address after it was checked (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import enum
import ipaddress
import socket
from ipaddress import IPv4Address, IPv6Address

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from sipserver.errors import CallerError

LONGEST_URL = 2048
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
UNIQUE_LOCAL = ipaddress.ip_network("fc00::/7")
NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""RFC 6052: an IPv4 address in the last four bytes."""
NOT_GLOBAL = tuple(map(ipaddress.ip_network, ("192.88.99.0/24", "2001::/23", "3fff::/20")))
"""6to4 relays, protocol assignments with Teredo, documentation: some versions of `ipaddress` call them global."""


class Kind(enum.Enum):
    """PRIVATE: of a private network or of this machine. FORBIDDEN: no webhook goes there whatever the settings say:
    link-local addresses (cloud metadata), multicast, reserved ones.
    """

    GLOBAL = enum.auto()
    PRIVATE = enum.auto()
    FORBIDDEN = enum.auto()


class Forbidden(OSError):
    """A name that resolves to no address that is permitted."""


def kind(address: str) -> Kind:
    """Of an address as text. What carries an IPv4 address within an IPv6 one (mapped, NAT64, 6to4) is as that one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return Kind.FORBIDDEN
    inner = _inner(parsed) if isinstance(parsed, IPv6Address) else None
    return _kind(inner or parsed)


def _inner(address: IPv6Address) -> IPv4Address | None:
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


def _kind(address: IPv4Address | IPv6Address) -> Kind:
    if address.is_loopback:
        return Kind.PRIVATE
    if address.is_multicast or address.is_unspecified or address.is_link_local or address.is_reserved:
        return Kind.FORBIDDEN
    if isinstance(address, IPv6Address) and address not in GLOBAL_UNICAST:
        return Kind.PRIVATE if address in UNIQUE_LOCAL else Kind.FORBIDDEN
    return Kind.GLOBAL if address.is_global and not any(address in net for net in NOT_GLOBAL) else Kind.PRIVATE


class Targets:
    """allow_private: https also to private addresses, http to private addresses alone; else https to global ones."""

    def __init__(self, *, allow_private: bool) -> None:
        self.allow_private = allow_private

    def permits(self, scheme: str, address: str) -> bool:
        found = kind(address)
        if found is Kind.PRIVATE:
            return self.allow_private
        return found is Kind.GLOBAL and scheme == "https"

    def check(self, url: str) -> URL:
        """Raises CallerError for what no webhook may be sent to. A name is not resolved: that is done for each
        connection.
        """
        if len(url) > LONGEST_URL:
            raise CallerError(f"the URL is longer than {LONGEST_URL} characters")
        try:
            parsed = URL(url)
            host, port = parsed.raw_host, parsed.port
        except ValueError as problem:
            raise CallerError(f"not a URL: {problem}") from None
        schemes = ("https", "http") if self.allow_private else ("https",)
        if parsed.scheme not in schemes:
            raise CallerError(f"the URL must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        if not host or not port:
            raise CallerError("the URL names no host, or port 0")
        if parsed.user is not None or parsed.password is not None:
            raise CallerError("the URL may not hold credentials")
        if _is_address(host) and not self.permits(parsed.scheme, host):
            raise CallerError(f"webhooks may not be sent to {host}")
        return parsed


def _is_address(host: str) -> bool:
    """Also 127.1, 2130706433 and 0x7f.0.0.1, which resolvers take for addresses: a name that ends in a number is one
    (WHATWG URL, "ends in a number"), and `kind` forbids what is not written in full.
    """
    last = host.rstrip(".").rpartition(".")[2].lower()
    return ":" in host or (last.isdigit() and last.isascii()) or last.startswith("0x")


class CheckedResolver(AbstractResolver):
    """Of what `lookup` finds, only what is permitted. Loop thread; raises Forbidden, and what lookup raises."""

    def __init__(self, lookup: AbstractResolver, targets: Targets, scheme: str) -> None:
        self._lookup, self._targets, self._scheme = lookup, targets, scheme

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._lookup.resolve(host, port, family)
        permitted = [each for each in found if self._targets.permits(self._scheme, each["host"])]
        if not permitted:
            raise Forbidden(f"{host} has no address that webhooks may be sent to")
        return permitted

    async def close(self) -> None:
        await self._lookup.close()
