"""What `sipserver doctor` looks at when there are trunks: passwords, host names, numbers, what cannot work together.

Owns the same kind of judgement as `checks`; sends nothing to a peer. Blocks for as long as the resolver takes.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from ipaddress import ip_address

import phonenumbers

from sipserver.cli.checks import Finding, ok, problem, warning
from sipserver.errors import ConfigError
from sipserver.settings import Settings
from sipserver.trunks import secrets
from sipserver.trunks.settings import TrunkSettings, host_of


def trunks(settings: Settings, environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """Nothing without trunks. environment: where the passwords are."""
    found = [
        problem("trunks", missing.reason, "set it in the service's environment file")
        for missing in secrets.missing(settings.trunks, environment)
    ]
    for trunk in settings.trunks:
        found += [*_hosts(trunk), *_country(trunk), *_way_in(trunk)]
    if settings.trunks and settings.mode == "single" and not found:
        found += _together(settings, environment)
    return found or ([ok("trunks", ", ".join(trunk.name for trunk in settings.trunks))] if settings.trunks else [])


def _hosts(trunk: TrunkSettings) -> list[Finding]:
    found = []
    for key in ("host", "registrar", "outbound_proxy"):
        name = host_of(getattr(trunk, key)).strip("[]")
        if name and not _resolves(name):
            what = f"{trunk.name}: nobody knows the address of {name}"
            found.append(problem("trunks", what, f"correct `{key}`, or the machine's resolver; IPv4 is needed"))
    return found


def _resolves(name: str) -> bool:
    try:
        return ip_address(name).version == 4
    except ValueError:
        pass
    try:
        return bool(socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_DGRAM))
    except (OSError, UnicodeError):
        return False


def _country(trunk: TrunkSettings) -> list[Finding]:
    if trunk.country and not phonenumbers.country_code_for_region(trunk.country):
        what = f"{trunk.name}: {trunk.country} is no country"
        return [problem("trunks", what, "write `country` as ISO 3166 does, e.g. DE")]
    return []


def _way_in(trunk: TrunkSettings) -> list[Finding]:
    if trunk.register_ is not None and not trunk.sources and not trunk.users:
        what = f"{trunk.name}: registers, but calls from there are refused"
        return [warning("trunks", what, "name the addresses that its calls come from in `sources`")]
    return []


def _together(settings: Settings, environment: Mapping[str, str]) -> list[Finding]:
    from sipserver.sip.sip_trunks import SipTrunks

    try:
        SipTrunks(settings.sip, settings.trunks, environment)
    except ConfigError as wrong:
        return [problem("trunks", str(wrong), "correct the settings")]
    tls = settings.sip.tls
    files = [path for path in (tls.certificate, tls.key, tls.ca) if path] if tls is not None else []
    return [problem("trunks", f"there is no file {path}", "correct sip.tls") for path in files if not path.is_file()]
