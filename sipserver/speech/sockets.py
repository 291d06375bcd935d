"""Unix and TCP sockets of the speech protocol: how a URI is listened on and connected to.

A Unix socket's path may be as long as file names may be, although the kernel takes only 107 bytes (unix(7)): longer
ones are reached through the descriptor of their folder. Only the user who made a socket can connect to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from sipserver.open_files import lifted

_LONGEST_PATH = 100
BACKLOG = 512
"""All streams of a machine come at the same moment when a worker was restarted."""
_FULL_S = 0.01


@contextlib.contextmanager
def _reachable(path: Path) -> Iterator[str]:
    """A name of the path that fits into a socket address, while the block runs."""
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def listen(uri: str) -> socket.socket:
    """A listening socket, `unix:///path` or `tcp://host:port`. What lies at the path is replaced. Raises OSError."""
    parts = urlsplit(uri)
    if parts.scheme == "tcp":
        return socket.create_server((parts.hostname or "", parts.port or 0), backlog=BACKLOG)
    path = Path(parts.path)
    listening = socket.socket(socket.AF_UNIX)
    try:
        os.fchmod(listening.fileno(), 0o600)  # before bind: the socket's file is made with these rights
        path.unlink(missing_ok=True)
        with _reachable(path) as name:
            listening.bind(name)
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


async def connect(uri: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Waits while too many others wait to be let in. Raises OSError when nobody listens. Safe to cancel."""
    parts = urlsplit(uri)
    if parts.scheme == "tcp":
        return await asyncio.open_connection(parts.hostname, parts.port)
    connected = lifted(socket.socket(socket.AF_UNIX))
    try:
        connected.setblocking(False)
        with _reachable(Path(parts.path)) as name:
            while True:
                try:
                    connected.connect(name)
                    break
                except BlockingIOError:  # the backlog is full (unix(7)); nothing tells when it is not
                    await asyncio.sleep(_FULL_S)
        return await asyncio.open_unix_connection(sock=connected)
    except BaseException:
        connected.close()
        raise
