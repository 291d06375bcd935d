"""The supervisor's ear for its operator: a Unix socket in `fleet.runtime`, one line of JSON each way.

`{"do": "status"}` is answered with `{"ok": {...}}` or `{"error": "..."}`. Owns the socket (mode 0600) and both ends of
the conversation. Refuses to know what the verbs do.
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

from sipserver.errors import InternalError, SipServerError
from sipserver.log import logger

NAME = "supervisor.sock"
MOST_BYTES = 4 * 1024 * 1024
ANSWER_S = 5.0

Verb = Callable[[], Awaitable[Mapping[str, Any]]]


def socket_path(runtime: Path) -> Path:
    return runtime / NAME


class AdminServer:
    """`start`, `stop`. Loop thread."""

    def __init__(self, runtime: Path, verbs: Mapping[str, Verb]) -> None:
        self._path, self._verbs = socket_path(runtime), verbs
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """The socket of an earlier supervisor is replaced: whoever starts has made sure that it is dead."""
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            listener.bind(str(self._path))
        except OSError as problem:
            listener.close()
            raise InternalError(f"{self._path}: {problem}") from None
        finally:
            os.umask(before)
        self._server = await asyncio.start_unix_server(self._accept, sock=listener, limit=MOST_BYTES)

    async def stop(self) -> None:
        if self._server is None:
            return
        self._server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.create_task(self._talk(reader, writer), name="admin")
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(line), default=str).encode() + b"\n")
                await writer.drain()
        writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            verb = json.loads(line)["do"]
            return {"ok": await self._verbs[verb]()}
        except (KeyError, TypeError, ValueError):
            return {"error": f"not understood; known: {', '.join(sorted(self._verbs))}"}
        except SipServerError as problem:
            return {"error": str(problem)}
        except Exception:
            logger("fleet").exception("a request of the operator broke")
            return {"error": "internal error, see the log"}


async def ask(runtime: Path, verb: str, timeout_s: float = ANSWER_S) -> dict[str, Any]:
    """Ask the supervisor whose sockets lie in `runtime`. Raises InternalError: none runs, no answer, or it refused."""
    path = socket_path(runtime)
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(str(path), limit=MOST_BYTES)
            try:
                writer.write(json.dumps({"do": verb}).encode() + b"\n")
                answer = json.loads(await reader.readline())
            finally:
                writer.close()
    except TimeoutError:
        raise InternalError(f"the supervisor at {path} does not answer within {timeout_s:g} s") from None
    except (OSError, ValueError):
        raise InternalError(f"no supervisor answers at {path}") from None
    if "error" in answer:
        raise InternalError(str(answer["error"]))
    fields: dict[str, Any] = answer["ok"]
    return fields
