"""The supervisor's ear for its operator: a Unix socket in `fleet.runtime`, one line of JSON each way.

`{"do": "status"}` is answered with `{"ok": {...}}` or `{"error": "..."}`. Owns the socket and the form of both. Refuses
to know what the verbs do.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from sipserver import line_socket
from sipserver.errors import InternalError, SipServerError
from sipserver.line_socket import LineServer
from sipserver.log import logger

NAME = "supervisor.sock"
ANSWER_S = 5.0

Verb = Callable[[], Awaitable[Mapping[str, Any]]]


def socket_path(runtime: Path) -> Path:
    return runtime / NAME


class AdminServer:
    """`start`, `stop`. Loop thread."""

    def __init__(self, runtime: Path, verbs: Mapping[str, Verb]) -> None:
        self._path, self._verbs = socket_path(runtime), verbs
        self._server = LineServer(self._path, self._answer, "admin")

    async def start(self) -> None:
        """The socket of an earlier supervisor is replaced: whoever starts has made sure that it is dead."""
        try:
            await self._server.start()
        except OSError as problem:
            raise InternalError(f"{self._path}: {problem}") from None

    async def stop(self) -> None:
        await self._server.stop()

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
        answer = await line_socket.ask(path, {"do": verb}, timeout_s)
    except TimeoutError:
        raise InternalError(f"the supervisor at {path} does not answer within {timeout_s:g} s") from None
    except (OSError, ValueError):
        raise InternalError(f"no supervisor answers at {path}") from None
    if "error" in answer:
        raise InternalError(str(answer["error"]))
    fields: dict[str, Any] = answer["ok"]
    return fields
