"""A Unix socket on which a process answers questions: one line of JSON each way, as many as the asker likes.

Owns the socket (mode 0600) and both ends of the conversation. Refuses to know what is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

MOST_BYTES = 4 * 1024 * 1024

Answer = Callable[[bytes], Awaitable[Mapping[str, Any]]]
"""A line -> what is written back. Must not raise."""


class LineServer:
    """`start`, `stop`. Loop thread."""

    def __init__(self, path: Path, answer: Answer, name: str) -> None:
        self._path, self._answer, self._name = path, answer, name
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """A socket that lies there is replaced: whoever starts has made sure that its owner is dead. Raises OSError."""
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            listener.bind(str(self._path))
        except OSError:
            listener.close()
            raise
        finally:
            os.umask(before)
        self._server = await asyncio.start_unix_server(self._accept, sock=listener, limit=MOST_BYTES)

    async def stop(self) -> None:
        """Idempotent."""
        if self._server is None:
            return
        self._server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)
        self._path.unlink(missing_ok=True)
        self._server = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.create_task(self._talk(reader, writer), name=self._name)
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ValueError):  # ValueError: a line beyond the limit
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(line), default=str).encode() + b"\n")
                await writer.drain()
        writer.close()


async def ask(path: Path, question: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
    """One question and its answer. Raises TimeoutError, OSError (nobody listens), ValueError (no JSON came back)."""
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_unix_connection(str(path), limit=MOST_BYTES)
        try:
            writer.write(json.dumps(question).encode() + b"\n")
            answer: dict[str, Any] = json.loads(await reader.readline())
        finally:
            writer.close()
    return answer
