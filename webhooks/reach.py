"""Whether a receiver could be told, without telling it anything: its URL, its name, its port, its certificate.

Owns the look at an endpoint from here. Refuses to send a byte of HTTP, and to go where `targets` lets no webhook go.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver

from sipserver.webhooks.targets import CheckedResolver, Targets


@dataclass(frozen=True, slots=True)
class Reached:
    """address: that answered. certificate_until: aware; None for http."""

    address: str
    certificate_until: datetime | None


async def reach(
    url: str,
    targets: Targets,
    *,
    within_s: float,
    lookup: AbstractResolver | None = None,
    trust: ssl.SSLContext | None = None,
) -> Reached:
    """Connect as a delivery would, and hang up. lookup, trust: how names are resolved and whose certificates are
    believed, if not as the machine has it.

    Raises CallerError (no webhook may go there), Forbidden, TimeoutError, ssl.SSLError (the certificate, too), OSError.
    """
    target = targets.check(url)
    host, port = str(target.raw_host), int(target.port or 0)
    secure = (trust or ssl.create_default_context()) if target.scheme == "https" else None
    resolver = CheckedResolver(lookup or aiohttp.ThreadedResolver(), targets, target.scheme)
    try:
        async with asyncio.timeout(within_s):
            found = await resolver.resolve(host, port)
            return await _first([each["host"] for each in found], port, secure, host)
    finally:
        await resolver.close()


async def _first(addresses: list[str], port: int, secure: ssl.SSLContext | None, host: str) -> Reached:
    """Of the addresses, the first that answers. Raises what the last one raised."""
    for number, address in enumerate(addresses, 1):
        try:
            name = host if secure is not None else None
            _, writer = await asyncio.open_connection(address, port, ssl=secure, server_hostname=name)
        except ssl.SSLError:
            raise
        except OSError:
            if number == len(addresses):
                raise
            continue
        try:
            return Reached(address, _until(writer.get_extra_info("peercert")))
        finally:
            writer.close()
            with contextlib.suppress(OSError):  # a farewell that is not heard is none the worse
                await writer.wait_closed()
    raise OSError(f"{host} has no address")


def _until(certificate: Any) -> datetime | None:
    if not certificate:
        return None
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), UTC)
