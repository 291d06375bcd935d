"""Listening sockets of the HTTP server whose connections get high descriptors.

A server may have thousands of HTTP clients in the process whose calls need the low ones (`open_files`), and neither
asyncio nor uvloop lets anybody choose. Owns accept(2), what happens when it fails, and that no connection is between
accept and aiohttp when the door has closed. Refuses to know HTTP.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from aiohttp import web

from sipserver.log import logger
from sipserver.open_files import lifted

BACKLOG = 1024
"""Connections that wait for accept(2). The kernel allows fewer where net.core.somaxconn says so."""
AT_A_TIME = 32
"""Accepted in one turn of the loop: a crowd that comes at once does not keep it from calls."""
PAUSE_S = 1.0
"""After accept(2) found no room. Who knocks meanwhile waits in the backlog."""
WARN_S = 60.0

_OF_THE_CLIENT = {
    errno.ECONNABORTED,
    errno.EPERM,
    errno.EPROTO,
    errno.ENETDOWN,
    errno.ENOPROTOOPT,
    errno.EHOSTDOWN,
    errno.ENONET,
    errno.EHOSTUNREACH,
    errno.EOPNOTSUPP,
    errno.ENETUNREACH,
}
"""accept(2): "should be treated like EAGAIN by retrying"; EPERM: a firewall."""

_log = logger("api")


class Acceptor:
    """One listening socket, which it owns. Loop thread. factory: the protocol of each connection."""

    def __init__(self, listener: socket.socket, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        self._listener: socket.socket | None = listener
        self._factory = factory
        self._loop = asyncio.get_running_loop()
        self._handing: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._warned_s = float("-inf")

    @property
    def sockets(self) -> Sequence[socket.socket]:
        return () if self._listener is None else (self._listener,)

    def start(self) -> None:
        """Raises OSError when somebody else listens there."""
        for listener in self.sockets:
            listener.setblocking(False)
            listener.listen(BACKLOG)
            self._loop.add_reader(listener, self._accept, listener)

    def close(self) -> None:
        """No new connections. Idempotent."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(listener)
        listener.close()

    async def wait_closed(self) -> None:
        """Until each connection that was accepted has its protocol."""
        await asyncio.gather(*self._handing, return_exceptions=True)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(AT_A_TIME):
            try:
                connection, _ = listener.accept()
                connection = lifted(connection)
            except BlockingIOError:
                return
            except OSError as problem:
                if problem.errno in _OF_THE_CLIENT:
                    continue
                self._rest(listener, problem)
                return
            task = self._loop.create_task(self._hand_over(connection), name="accept a connection")
            self._handing.add(task)
            task.add_done_callback(self._handing.discard)

    def _rest(self, listener: socket.socket, problem: OSError) -> None:
        """A socket with somebody waiting stays readable: the loop would turn without end."""
        now_s = self._loop.time()
        if now_s - self._warned_s >= WARN_S:
            self._warned_s = now_s
            _log.warning(
                "no new connections for now; raise the limit of open files (LimitNOFILE) or lower gate.connections",
                error=problem.strerror or str(problem),
            )
        self._loop.remove_reader(listener)
        self._pause = self._loop.call_later(PAUSE_S, self._go_on)

    def _go_on(self) -> None:
        for listener in self.sockets:
            self._loop.add_reader(listener, self._accept, listener)

    async def _hand_over(self, connection: socket.socket) -> None:
        try:
            if connection.family in {socket.AF_INET, socket.AF_INET6}:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(self._factory, connection)
        except OSError:  # the client is gone already
            connection.close()


class Site(web.BaseSite):
    """Sockets of aiohttp's runner, which are bound already and which it owns from `start` on. `stop` returns when
    aiohttp knows every connection that was accepted: a clean-up misses none.
    """

    __slots__ = ("_acceptors", "_listeners")

    def __init__(self, runner: web.AppRunner, listeners: Sequence[socket.socket]) -> None:
        super().__init__(runner)
        self._listeners = listeners
        self._acceptors: list[Acceptor] = []

    @property
    def name(self) -> str:
        return ", ".join(str(listener.getsockname()) for listener in self._listeners)

    async def start(self) -> None:
        """Raises OSError when somebody else listens there."""
        await super().start()
        factory = self._runner.server
        assert factory is not None
        self._acceptors = [Acceptor(listener, factory) for listener in self._listeners]
        for acceptor in self._acceptors:
            acceptor.start()

    async def stop(self) -> None:
        for acceptor in self._acceptors:
            acceptor.close()
        await asyncio.gather(*(acceptor.wait_closed() for acceptor in self._acceptors))
        await super().stop()


async def bound(host: str, port: int, *, reuse_port: bool = False) -> Sequence[socket.socket]:
    """One TCP socket for each address of the host; empty: all addresses. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    listeners: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listener = socket.socket(family, kind, protocol)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def bound_at(path: Path) -> socket.socket:
    """A Unix socket; one that lies there is replaced. Raises OSError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        os.chmod(path, 0o600)
    except OSError:
        listener.close()
        raise
    return listener
