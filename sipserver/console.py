"""How an operator's command reaches a single server that runs: a Unix socket in `fleet.runtime`.

`{"do": verb, "with": {...}}`; the verbs are those that a cell of a fleet answers on the bus (`calls.commands`). Owns
the form of question and answer. A server that cannot have the socket runs without it, and says so in its log.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from sipserver import line_socket
from sipserver.bus import remote
from sipserver.bus.contract import Handler, Json
from sipserver.errors import CallerError, InternalError
from sipserver.line_socket import LineServer
from sipserver.log import logger
from sipserver.settings import Settings

ANSWER_S = 5.0


def socket_path(settings: Settings) -> Path:
    """Servers that share a folder have SIP ports of their own."""
    return settings.fleet.runtime / f"server-{settings.sip.port}.sock"


@contextlib.asynccontextmanager
async def listening(settings: Settings, handler: Handler) -> AsyncIterator[None]:
    """Answer for the length of an `async with` block. The SIP port must be ours: no other server has the socket."""
    path = socket_path(settings)
    server = LineServer(path, lambda line: _answer(handler, line), "console")
    try:
        await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
        await server.start()
    except OSError as problem:
        logger("console").warning(
            "no operator can reach this server: set fleet.runtime", path=str(path), error=str(problem)
        )
    try:
        yield
    finally:
        await server.stop()


async def ask(settings: Settings, verb: str, arguments: Mapping[str, Any], timeout_s: float = ANSWER_S) -> Json:
    """Ask the single server that runs with these settings. Raises InternalError (none runs, no answer), RemoteError
    (what it raised).
    """
    path = socket_path(settings)
    try:
        answer = await line_socket.ask(path, {"do": verb, "with": dict(arguments)}, timeout_s)
    except TimeoutError:
        raise InternalError(f"the server at {path} does not answer within {timeout_s:g} s") from None
    except (OSError, ValueError):
        raise InternalError(f"no server answers at {path}; does `sipserver run` run with these settings?") from None
    return remote.unpacked(answer)


async def _answer(handler: Handler, line: bytes) -> Mapping[str, Any]:
    try:
        asked = json.loads(line)
        verb, arguments = str(asked["do"]), dict(asked["with"])
    except (KeyError, TypeError, ValueError):
        return {"error": remote.packed(CallerError("not understood; ask {do: verb, with: {...}}"))}
    return await remote.answer(handler, verb, arguments)
