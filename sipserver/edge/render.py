"""Settings to Kamailio's configuration: pure, no file is written here.

Owns what the templates of `etc/kamailio/` are given, and that no setting can break out of where it is printed. Refuses
to know processes (kamailio.py) and the media relay's decisions (media.py).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import jinja2

from sipserver.edge import cells, outside, ways
from sipserver.edge.media import media_routes
from sipserver.edge.outside import host
from sipserver.edge.settings import EdgeSettings, Listen
from sipserver.errors import SettingsError
from sipserver.trunks.settings import TrunkSettings

CONFIG = "kamailio.cfg"
TLS_CONFIG = "kamailio-tls.cfg"

METHODS = "INVITE, ACK, CANCEL, BYE, OPTIONS, PRACK, UPDATE, INFO"
ANSWER_MS = 800
"""A cell that has not said anything to an INVITE for so long is dead, hangs or cannot read it; another one is asked."""
SILENT = 1
"""Cells that may say nothing before another is asked: a message that no cell can read does not reach all of them."""
REQUEST_MS = 1500
"""The same for a question whether it lives."""
DIALOG_MS = 16_000
"""How long the far end may take to answer a BYE or a re-INVITE."""
RING_MS = 180_000
OUTSIDE_MS = 10_000
"""How long a peer may take for its first answer to what cells ask of it; then they try another trunk."""
WINDOW = 16
"""Cells that are compared for a call."""
IN_ORDER, IN_TURN = 8, 4
"""The dispatcher's algorithms: by priority, which is the order of our list, or from one further each time."""
TRIES = 20
"""Cells that are tried for a call. Kamailio knows at most 32 branches of one."""
REFUSING_S = 3
"""A cell that refused a call, or said nothing to it, is not asked again for so long while there are others."""
AGAIN = 3
"""Cells that are asked all the same when there is no other."""
FIELDS = 100
"""Header fields of a request from outside, all together; PJSIP gives up at some hundred, as at what follows."""
VIAS = 32
FIELD_BYTES = 2048
IDENTITY_BYTES = 4096
"""Of a field that holds a PASSporT, some kilobyte each (RFC 8224)."""
NONCE_S = 60
REFUSALS = 10
"""Refusals within a minute after which a stranger is not answered any more."""
RELOAD_S = 1
"""Kamailio loads its list of cells at most this often; what read the list before must be through with it."""
AUTHORITIES = Path("/etc/ssl/certs")
"""Whom we believe who a TLS peer is, unless the settings name a list: the system's authorities by the hashes of their
names (openssl-rehash(1)). A list of all of them would cost every start of Kamailio five seconds of CPU.
"""
MASK_IP = "127.0.0.8"
"""Stands in hidden headers where an address must stand; nothing is sent there."""

_WORD = re.compile(r"[A-Za-z0-9_.:-]+")
_FORBIDDEN = re.compile(r"""["'\\$#;{}`]|[^\x20-\x7e]""")
_UNPRINTED = "0" * 32
_PRINTED = re.compile(r'edge=>configuration\) = "([0-9a-f]{32})"')
_PATH = re.compile(r"[A-Za-z0-9_./@+~,=-]+")


@dataclass(frozen=True, slots=True)
class Secrets:
    """Of one edge, the same over its restarts: nonce signs challenges, topology ciphers hidden headers; hex digits."""

    nonce: str
    topology: str


@dataclass(frozen=True, slots=True)
class Places:
    """Where Kamailio finds its files; sockets' paths hold at most 107 bytes (unix(7))."""

    folder: Path
    rpc_socket: Path

    @property
    def cells(self) -> Path:
        return self.folder / "cells.list"

    @property
    def tls(self) -> Path:
        return self.folder / TLS_CONFIG


def render(
    edge: EdgeSettings,
    trunks: Sequence[TrunkSettings],
    cell_codecs: Sequence[str],
    *,
    places: Places,
    secrets: Secrets,
    passwords: Mapping[str, str],
) -> dict[str, str]:
    """File name -> text. cell_codecs: `sip.codecs`. passwords: by environment variable (`os.environ` does).

    Raises SettingsError for a password that is not there and for any value that does not belong into a configuration.
    """
    # This is no HTML: every value has a filter or a type of its own.
    environment = jinja2.Environment(  # noqa: S701  # nosec B701
        loader=jinja2.FunctionLoader(_template), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    environment.filters.update(quoted=quoted, word=word, path=path)
    values = _values(edge, trunks, cell_codecs, places, secrets, passwords)
    texts = {CONFIG: environment.get_template("kamailio.cfg.j2").render(values)}
    if edge.tls is not None:
        texts[TLS_CONFIG] = environment.get_template("tls.domains.j2").render(values)
    texts[CONFIG] = texts[CONFIG].replace(_UNPRINTED, _hash(texts))
    return texts


def fingerprint(texts: Mapping[str, str]) -> str:
    """What the rendered files say of themselves: a running Kamailio of the same files answers the same."""
    found = _PRINTED.search(texts[CONFIG])
    assert found is not None
    return found[1]


def _hash(texts: Mapping[str, str]) -> str:
    return hashlib.sha256("\0".join(texts[name] for name in sorted(texts)).encode()).hexdigest()[:32]


def _template(name: str) -> str:
    return (files("sipserver.edge.templates") / name).read_text(encoding="utf-8")


def _values(
    edge: EdgeSettings,
    trunks: Sequence[TrunkSettings],
    cell_codecs: Sequence[str],
    places: Places,
    secrets: Secrets,
    passwords: Mapping[str, str],
) -> dict[str, Any]:
    if any(listen.transport == "tls" for listen in edge.listen) and edge.tls is None:
        raise SettingsError("a tls socket needs a certificate and a key", key="edge.tls")
    inside = host(edge.inside)
    sockets = [
        {"transport": "udp", "address": inside, "port": edge.inside_port, "advertise": "", "name": "inside"},
        *(_socket(number, listen) for number, listen in enumerate(edge.listen)),
    ]
    users = _users(edge, trunks, passwords)
    leaving = [ways.way(edge, trunk) for trunk in trunks if trunk.places_calls]
    return {
        "sockets": sockets,
        "tcp": any(socket["transport"] != "udp" for socket in sockets),
        "inside": f"{inside}:{edge.inside_port}",
        "cells": cells.SET,
        "cells_file": places.cells,
        "rpc_socket": places.rpc_socket,
        "tls_config": places.tls,
        "authorities": AUTHORITIES,
        "children": edge.children,
        "tls": edge.tls if any(listen.transport == "tls" for listen in edge.listen) else None,
        "flood": edge.flood,
        "max_message_bytes": edge.max_message_bytes,
        "tcp_buffer_bytes": max(16_384, edge.max_message_bytes + 4096),
        "ptime_ms": edge.ptime_ms,
        "probe_s": edge.probe_s,
        "retry_after_s": edge.retry_after_s,
        "longest_call_s": edge.longest_call_s,
        "open": edge.open,
        "realm": edge.realm,
        "digest": edge.digest,
        "topology_hiding": edge.topology_hiding,
        "trunks": [_trunk(trunk) for trunk in trunks],
        "codecs": trunks,
        "users": users,
        "ways": leaving,
        "certified": [way for way in leaving if way["transport"] == "tls"],
        "exits": ways.exits(edge),
        "known": sorted({address for trunk in trunks for address in outside.addresses(trunk)}),
        "anywhere": any(user["anywhere"] for user in users),
        "media": media_routes(edge, trunks, cell_codecs),
        "nonce_secret": word(secrets.nonce),
        "topology_key": word(secrets.topology),
        "methods": METHODS,
        "answer_ms": ANSWER_MS,
        "request_ms": REQUEST_MS,
        "dialog_ms": DIALOG_MS,
        "outside_ms": OUTSIDE_MS,
        "ring_ms": RING_MS,
        "window": WINDOW,
        "in_order": IN_ORDER,
        "in_turn": IN_TURN,
        "tries": TRIES,
        "refusing_s": REFUSING_S,
        "again": AGAIN,
        "silent": SILENT,
        "fields": FIELDS,
        "vias": VIAS,
        "field_bytes": FIELD_BYTES,
        "identity_bytes": IDENTITY_BYTES,
        "nonce_s": NONCE_S,
        "refusals": REFUSALS,
        "reload_s": RELOAD_S,
        "mask_ip": MASK_IP,
        "fingerprint": _UNPRINTED,
    }


def _socket(number: int, listen: Listen) -> dict[str, Any]:
    return {
        "transport": listen.transport,
        "address": host(listen.host),
        "port": listen.port,
        "advertise": outside.advertised(listen) if listen.advertise else "",
        "name": f"outside{number}",
    }


def _trunk(trunk: TrunkSettings) -> dict[str, Any]:
    """wide: its sources are the whole world, so that its peers are nobody in particular."""
    return {
        "name": trunk.name,
        "sources": [str(ip_network(source)) for source in trunk.sources],
        "wide": any(ip_network(source).prefixlen == 0 for source in trunk.sources),
        "users": trunk.users,
        "limits": trunk.limits,
    }


def _users(
    edge: EdgeSettings, trunks: Sequence[TrunkSettings], passwords: Mapping[str, str]
) -> list[dict[str, str | bool]]:
    users: list[dict[str, str | bool]] = []
    owners: dict[str, str] = {}
    for trunk in trunks:
        anywhere = not trunk.sources
        for user in trunk.users:
            password = passwords.get(user.password_env, "")
            if not password:
                raise SettingsError(
                    f"the environment variable {user.password_env} with {user.name}'s password is empty",
                    key=f"trunks.{trunk.name}.users",
                )
            if anywhere and owners.setdefault(user.name, trunk.name) != trunk.name:
                raise SettingsError(
                    f"{user.name} is a user of {owners[user.name]} and of {trunk.name}, and neither names sources",
                    key="trunks",
                )
            ha1 = ha1_of(user.name, edge.realm, password, edge.digest)
            users.append({"trunk": trunk.name, "name": user.name, "ha1": ha1, "anywhere": anywhere})
    return users


def ha1_of(user: str, realm: str, password: str, digest: str) -> str:
    """H(user ":" realm ":" password), hex (RFC 7616, 3.4.2)."""
    text = f"{user}:{realm}:{password}".encode()
    return (hashlib.sha256 if digest == "SHA-256" else lambda value: hashlib.md5(value, usedforsecurity=False))(
        text
    ).hexdigest()


def quoted(value: object) -> str:
    """For the inside of a double-quoted string of Kamailio. Raises SettingsError for what would end or be expanded."""
    text = str(value)
    if found := _FORBIDDEN.search(text):
        raise SettingsError(f"{text!r} must not contain {found.group()!r}", key="edge")
    return text


def word(value: object) -> str:
    """Letters, digits and `_.:-` alone. Raises SettingsError."""
    text = str(value)
    if not _WORD.fullmatch(text):
        raise SettingsError(f"{text!r} may only have letters, digits and _ . : -", key="edge")
    return text


def path(value: object) -> str:
    """A path in `tls.cfg`, which knows no quotes. Raises SettingsError."""
    text = str(value)
    if not _PATH.fullmatch(text):
        raise SettingsError(f"the path {text!r} may only have letters, digits and _ . / @ + ~ , = -", key="edge.tls")
    return text
