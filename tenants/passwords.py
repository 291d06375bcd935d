"""Passwords: which are taken, and how they are kept (argon2id), on threads that are few.

Owns how many are worked on at a time and how many may wait. Refuses to know whose they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import unicodedata
from collections.abc import AsyncIterator

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from sipserver.errors import CallerError, TooMany

LEAST, MOST = 12, 256
"""Characters (NIST SP 800-63B: long ones, and no rules about what they consist of)."""
MEMORY_KIB, PASSES, LANES = 19 * 1024, 2, 1
"""OWASP Password Storage Cheat Sheet, the first choice of Argon2id."""
AT_A_TIME, WAITING = 2, 32


class Passwords:
    """Loop thread; the work happens on other threads. Raises TooMany when WAITING others wait already."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(PASSES, MEMORY_KIB, LANES)
        self._room = asyncio.Semaphore(AT_A_TIME)
        self._inside = 0
        self._nobodys = ""

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[Turn]:
        """Held while a password is worked on."""
        if self._inside >= AT_A_TIME + WAITING:
            raise TooMany("too many people log in at this moment")
        self._inside += 1
        try:
            async with self._room:
                yield Turn(self._hasher, await self._nobody())
        finally:
            self._inside -= 1

    async def hash(self, password: str) -> str:
        """Raises CallerError for one that is too short or too long."""
        check(password)
        async with self.turn() as turn:
            return await turn.hash(password)

    async def _nobody(self) -> str:
        """A hash that is verified when there is no user, so that this takes as long."""
        if not self._nobodys:
            self._nobodys = await asyncio.to_thread(self._hasher.hash, "nobody has this password")
        return self._nobodys


class Turn:
    """One of AT_A_TIME."""

    def __init__(self, hasher: PasswordHasher, nobodys: str) -> None:
        self._hasher, self._nobodys = hasher, nobodys

    async def hash(self, password: str) -> str:
        return await asyncio.to_thread(self._hasher.hash, _normal(password))

    async def verify(self, kept: str | None, password: str) -> bool:
        """kept: None takes as long, and is never right."""
        return await asyncio.to_thread(self._is_right, kept or self._nobodys, password) and kept is not None

    def is_outdated(self, kept: str) -> bool:
        """Whether today's parameters are others than those it was made with."""
        return self._hasher.check_needs_rehash(kept)

    def _is_right(self, kept: str, password: str) -> bool:
        try:
            return self._hasher.verify(kept, _normal(password))
        except (VerificationError, InvalidHashError):
            return False


def check(password: str) -> None:
    """Raises CallerError for one that is not taken."""
    if not LEAST <= len(unicodedata.normalize("NFKC", password)) <= MOST:
        raise CallerError(f"a password has {LEAST} to {MOST} characters")


def _normal(password: str) -> bytes:
    """The same from every keyboard (NIST SP 800-63B, 5.1.1.2); half characters are kept as they are."""
    return unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")
