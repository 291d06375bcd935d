"""How calls leave the edge: what `etc/kamailio/outbound.cfg.j2` prints of each trunk and of our own sockets. Pure.

Owns that a trunk can be called with these settings at all, and what its certificate must say. Refuses to choose the
socket's address (outside.py) and to know the media (media.py).
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any

from sipserver.edge import outside
from sipserver.edge.outside import host
from sipserver.edge.settings import EdgeSettings
from sipserver.errors import SettingsError
from sipserver.trunks.settings import TrunkSettings


def way(edge: EdgeSettings, trunk: TrunkSettings) -> dict[str, Any]:
    """How calls leave through a trunk. proxy: empty where they go to the host of their Request-URI; target: where
    those go that a REFER of the peer led to. certified: by TLS, what its peer's certificate must have one of. Raises
    SettingsError for a trunk that cannot be called.
    """
    outside.leaves_by(edge, trunk)
    if trunk.srtp == "required" and edge.rtpengine is None:
        raise SettingsError(
            f"trunk {trunk.name} places calls with SRTP, which needs edge.rtpengine", key=f"trunks.{trunk.name}.srtp"
        )
    proxy, port = outside.parted(trunk.outbound_proxy)
    target, target_port = outside.parted(trunk.target)
    return {
        "name": trunk.name,
        "transport": trunk.transport,
        "proxy": proxy and host(proxy),
        "proxy_port": port or "",
        "target": host(target),
        "target_port": target_port or "",
        "certified": [pattern for name in outside.peers(trunk) for pattern in certificate_names(name)],
    }


def certificate_names(peer: str) -> tuple[str, ...]:
    """The GeneralNames (RFC 5280, 4.2.1.6; DER, hexadecimal) by which a certificate may name a host or address:
    dNSName, also with `*` for its first label (RFC 6125, 6.4.3), or iPAddress.
    """
    try:
        packed = ip_address(peer).packed
    except ValueError:
        plain = peer.lower().rstrip(".")
        _, dot, parent = plain.partition(".")
        names = (plain, f"*.{parent}") if dot and "." in parent else (plain,)
        return tuple(f"82{len(name):02x}{name.encode().hex()}" for name in names)
    return (f"87{len(packed):02x}{packed.hex()}",)


def exits(edge: EdgeSettings) -> list[dict[str, Any]]:
    """The socket of each transport and address family. first: the one for names, whose family shows later."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for listen in sorted(edge.listen, key=outside.family):
        key = (listen.transport, outside.family(listen))
        first = all(transport != listen.transport for transport, _ in found)
        socket = f"{listen.transport}:{host(listen.host)}:{listen.port}"
        address = outside.advertised(listen)
        shown = address if listen.transport == "udp" else f"{address};transport={listen.transport}"
        # In a regular expression, between slashes; brackets of IPv6 too.
        pattern = re.sub(
            r"[^A-Za-z0-9:]", lambda sign: f"[{sign[0]}]" if sign[0] not in "[]" else rf"\\{sign[0]}", address
        )
        facts = {"socket": socket, "first": first, "shown": shown, "pattern": pattern}
        found.setdefault(key, {"transport": key[0], "family": key[1], **facts})
    return list(found.values())
