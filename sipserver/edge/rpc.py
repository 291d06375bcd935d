"""Questions to a running Kamailio: JSON-RPC 2.0 in datagrams on a Unix socket (module jsonrpcs).

Owns one question and its answer. Refuses to know what the methods mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import secrets
import socket
from pathlib import Path
from typing import Any

from sipserver.errors import CarrierError

ANSWER_BYTES = 262_144
ANSWERS = "ask-"
"""How the names of the sockets for answers begin, beside Kamailio's own: one whose asker was killed stays."""

_numbers = itertools.count(1)


class RpcError(CarrierError):
    """Kamailio is not there, does not answer in time, or refuses the question."""


async def ask(place: Path, method: str, *parameters: str | int, timeout_s: float = 2.0) -> Any:
    """The `result` of one question; loop thread, safe to cancel. Raises RpcError.

    A datagram is answered to the asker's own address, so each question has a socket of its own. It lies beside
    Kamailio's, as both see that folder even where systemd gives each unit another /tmp; only this user may write to it.
    """
    number = next(_numbers)
    question = {"jsonrpc": "2.0", "method": method, "id": number}
    if parameters:
        question["params"] = list(parameters)
    loop = asyncio.get_running_loop()
    answers = place.with_name(f"{ANSWERS}{secrets.token_hex(4)}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ANSWER_BYTES)
        os.fchmod(ours.fileno(), 0o600)  # before the name is there, so that it never has another mode
        try:
            ours.bind(str(answers))
            async with asyncio.timeout(timeout_s):
                with contextlib.suppress(InterruptedError):
                    ours.connect(str(place))
                await loop.sock_sendall(ours, json.dumps(question).encode())
                while True:
                    answer = json.loads(await loop.sock_recv(ours, ANSWER_BYTES))
                    if answer.get("id") == number:
                        break
        except (OSError, ValueError) as error:  # TimeoutError is an OSError
            reason = "no answer" if isinstance(error, TimeoutError) else str(error)
            raise RpcError(f"Kamailio at {place}: {method}: {reason}") from None
        finally:
            answers.unlink(missing_ok=True)
    if "error" in answer:
        raise RpcError(f"Kamailio at {place}: {method}: {answer['error'].get('message', '')}")
    return answer.get("result")
