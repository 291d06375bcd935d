"""What an HTTP request says about who asks and how: the token, the address behind a proxy, how we are reached. Pure."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from sipserver.gate.settings import GateSettings

TOKEN_PROTOCOL = "token."  # noqa: S105 # nosec B105
"""A page cannot set headers of a WebSocket; it may offer the sub-protocol `token.<token>`."""
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="sipserver"'}
"""Of a 401: whoever is not known is told how to become so (RFC 9110, 11.6.1)."""


def token_of(request: web.Request) -> str:
    """The token, by `Authorization: Bearer`, the sub-protocol `token.<token>`, or `?token=`; empty: none."""
    if given := bearer_of(request):
        return given
    if protocol := token_protocol(request):
        return protocol.removeprefix(TOKEN_PROTOCOL)
    return request.query.get("token", "")


def bearer_of(request: web.Request) -> str:
    """What came by `Authorization: Bearer` (RFC 6750); empty: nothing did."""
    scheme, _, given = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def token_protocol(request: web.Request) -> str:
    """The sub-protocol that carries a token, as it was offered; empty: none does."""
    return next((each for each in offered_protocols(request) if each.startswith(TOKEN_PROTOCOL)), "")


def offered_protocols(request: web.Request) -> list[str]:
    """Sub-protocols of a WebSocket that the client speaks, in its order."""
    headers = request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, [])
    return [name for header in headers for each in header.split(",") if (name := each.strip())]


def address_of(request: web.Request) -> str:
    """Who asks. A proxy on this machine says for whom (the last address of X-Forwarded-For, which is what it saw
    itself); nobody else is believed.
    """
    remote = request.remote or ""
    forwarded = request.headers.getall(hdrs.X_FORWARDED_FOR, [])
    if forwarded and _is_loopback(remote):
        return forwarded[-1].rpartition(",")[2].strip() or remote
    return remote


def public_url(request: web.Request, settings: GateSettings, *, websocket: bool = False) -> str:
    """How others reach us, without a path and a slash at the end: `gate.public_url`, or else the Host that was asked;
    https if a proxy on this machine says so (X-Forwarded-Proto). websocket: `ws` or `wss` instead of http.
    """
    scheme, _, host = settings.public_url.partition("://")
    if not host:
        scheme, host = request.scheme, request.host
        if _is_loopback(request.remote or ""):
            scheme = request.headers.get(hdrs.X_FORWARDED_PROTO, scheme).partition(",")[0].strip().lower()
    secure = scheme in {"https", "wss"}
    if websocket:
        return f"{'wss' if secure else 'ws'}://{host}"
    return f"{'https' if secure else 'http'}://{host}"


def is_own_page(request: web.Request, settings: GateSettings) -> bool:
    """Whether a page of ours asks. Browsers name it (Origin, RFC 6454); programs send no Origin, and may."""
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None:
        return True
    own = {request.host.lower(), urlsplit(public_url(request, settings)).netloc.lower()} - {""}
    return urlsplit(origin.lower()).netloc in own


def _is_loopback(address: str) -> bool:
    """True also for a Unix socket, which has no address."""
    try:
        return not address or ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False
