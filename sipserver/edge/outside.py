"""The edge's addresses: the one that cells send their requests to, and those that peers see. Pure.

Owns which socket a trunk's requests leave by, and how hosts and ports are written. Refuses to know Kamailio.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address

from sipserver.edge.settings import EdgeSettings, Listen
from sipserver.errors import SettingsError
from sipserver.trunks.settings import TrunkSettings

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


def route(edge: EdgeSettings) -> str:
    """What cells put into Route (RFC 3261, 20.34) so that a request leaves by the edge. Raises SettingsError."""
    return f"<sip:{host(edge.inside)}:{edge.inside_port};lr>"


def contact(edge: EdgeSettings, trunk: TrunkSettings) -> str:
    """`host:port` where the trunk's peer reaches us: of the contact that cells register. Raises SettingsError."""
    return advertised(leaves_by(edge, trunk))


def leaves_by(edge: EdgeSettings, trunk: TrunkSettings) -> Listen:
    """The socket that the trunk's requests leave by: the first of its transport and of its peer's address family; for a
    peer with a name IPv4, if there is such a socket. Raises SettingsError when there is none.
    """
    peer, _ = parted(trunk.outbound_proxy or trunk.target)
    wanted = _version(peer)
    sockets = [listen for listen in edge.listen if listen.transport == trunk.transport]
    for listen in sorted(sockets, key=family):
        if wanted in (0, family(listen)):
            return listen
    which = f"{trunk.transport}{f' on IPv{wanted}' if wanted else ''}"
    raise SettingsError(
        f"trunk {trunk.name} calls by {which}, and edge.listen has no such socket", key=f"trunks.{trunk.name}.transport"
    )


def advertised(listen: Listen) -> str:
    """`host:port` that peers see, IPv6 in brackets. Raises SettingsError."""
    if not listen.advertise:
        return f"{host(listen.host)}:{listen.port}"
    try:
        name, port = parted(listen.advertise)
    except ValueError:
        name, port = "", 0
    if not name or (port is not None and not 1 <= port <= 65_535):
        raise SettingsError(f"{listen.advertise!r} is not host or host:port", key="edge.listen.advertise")
    return f"{host(name)}:{port or listen.port}"


def family(listen: Listen) -> int:
    """4 or 6; a name counts as 4."""
    return _version(listen.host) or 4


def peers(trunk: TrunkSettings) -> tuple[str, ...]:
    """Whom the trunk's requests go to, without ports: its proxy, or else its host and its registrar."""
    texts = (trunk.outbound_proxy,) if trunk.outbound_proxy else (trunk.host, trunk.registrar)
    return tuple(dict.fromkeys(parted(text)[0] for text in texts if text))


def addresses(trunk: TrunkSettings) -> tuple[str, ...]:
    """Those of them that are written as addresses."""
    return tuple(peer for peer in peers(trunk) if _version(peer))


def parted(text: str) -> tuple[str, int | None]:
    """`host`, `host:port`, `[v6]` or `[v6]:port`, also a bare IPv6 address: host without brackets, and port. Raises
    ValueError for a port that is none.
    """
    if _version(text):
        return text.strip("[]"), None
    name, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        return text.strip("[]"), None
    if not port.isascii() or not port.isdigit():
        raise ValueError(f"{port!r} is no port")
    return name.strip("[]"), int(port)


def host(text: str) -> str:
    """An address (IPv6 in brackets) or a host name. Raises SettingsError."""
    try:
        address = ip_address(text)
    except ValueError:
        if not _HOST.fullmatch(text):
            raise SettingsError(f"{text!r} is no address", key="edge") from None
        return text
    return f"[{address}]" if isinstance(address, IPv6Address) else str(address)


def _version(text: str) -> int:
    """4 or 6 of an address, 0 of a name."""
    try:
        return ip_address(text.strip("[]")).version
    except ValueError:
        return 0
