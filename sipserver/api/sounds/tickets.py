"""The right of one machine to one sound file of another: a secret whose meaning stands on the bus while it is needed.

Owns its form and where it stands. What machines of a fleet trust already is the bus, so there is no key to hand out,
and nobody has a right beyond the file that is named. Refuses to know HTTP and files.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

from sipserver.bus.contract import Leases

SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Sound:
    """One file, or the first of a call's. node: the machine that has it. path: as records have it. whole: an encrypted
    file must have its end.
    """

    node: str
    tenant: str
    call: str
    path: str
    whole: bool


@asynccontextmanager
async def issued(leases: Leases, sound: Sound) -> AsyncIterator[str]:
    """The secret, good until the block ends; if this process dies in it, for a lease's time."""
    secret = secrets.token_urlsafe(SECRET_BYTES)
    lease = await leases.hold(_key(secret), asdict(sound))
    try:
        yield secret
    finally:
        lease.drop()


async def shown(leases: Leases, authorization: str) -> Sound | None:
    """What the bearer of this may have; None: nothing, for whatever reason. Raises BusDown."""
    kind, _, secret = authorization.partition(" ")
    if kind != "Bearer":
        return None
    meant = await leases.get(_key(secret))
    return None if meant is None else Sound(**meant)


def _key(secret: str) -> str:
    return f"sound/{secret}"
