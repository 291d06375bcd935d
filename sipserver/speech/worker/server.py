"""The speech worker's door: listens, and gives every connection a session.

Owns the listening sockets and the sessions' tasks. Refuses to know what sessions do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from urllib.parse import urlsplit

from sipserver.log import logger
from sipserver.speech import sockets
from sipserver.speech.worker.host import Host
from sipserver.speech.worker.session import Session

CLOSE_S = 3.0


class SpeechServer:
    """Loop thread."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._servers: list[asyncio.Server] = []
        self._sessions: dict[asyncio.Task[None], Session] = {}
        self._log = logger("speech")

    @property
    def connections(self) -> int:
        return len(self._sessions)

    async def listen(self, *uris: str) -> Sequence[str]:
        """Begin to serve; returns the URIs with the ports that port 0 became. Raises OSError."""
        told = []
        for uri in uris:
            listening = sockets.listen(uri)
            if urlsplit(uri).scheme == "tcp":
                server = await asyncio.start_server(self._let_in, sock=listening, backlog=sockets.BACKLOG)
                self._servers.append(server)
                host, port = listening.getsockname()[:2]
                told.append(f"tcp://{f'[{host}]' if ':' in host else host}:{port}")
            else:
                self._servers.append(
                    await asyncio.start_unix_server(self._let_in, sock=listening, backlog=sockets.BACKLOG)
                )
                told.append(uri)
        return told

    async def close(self) -> None:
        """Let nobody in any more and end all sessions. The socket's file stays: it may be the next worker's by now."""
        for server in self._servers:
            server.close()
        for session in self._sessions.values():
            session.writer.transport.abort()
        if self._sessions:
            await asyncio.wait(self._sessions, timeout=CLOSE_S)

    def _let_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session(reader, writer, self._host)
        task = asyncio.create_task(session.run(), name="speech session")
        self._sessions[task] = session
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._sessions[task]
        if not task.cancelled() and (problem := task.exception()) is not None:
            self._log.error("a speech session broke", exc_info=problem)
