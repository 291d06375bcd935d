"""A Lua script that Redis runs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from redis import exceptions
from redis.asyncio import Redis


class Script:
    """Sent by its hash; whole to a server that does not know it yet."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._hash = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, redis: Redis, prefix: str, arguments: Sequence[str | int]) -> list[bytes]:
        try:
            return await redis.evalsha(self._hash, 1, prefix, *arguments)  # type: ignore[no-any-return]
        except exceptions.NoScriptError:
            return await redis.eval(self._text, 1, prefix, *arguments)  # type: ignore[no-any-return]
