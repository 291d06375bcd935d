"""A real TURN server: Debian's coturn, on a port of its own, for one user."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

USER = "sip"
PASSWORD = "only for tests"


def is_installed() -> bool:
    return shutil.which("turnserver") is not None


@contextlib.asynccontextmanager
async def turn_server(folder: Path) -> AsyncIterator[str]:
    """Its URL. Ends with the block."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    log = (folder / "turn.log").open("wb")
    command = (
        *("turnserver", "-n", "--no-cli", "--no-tls", "--no-dtls", "--allow-loopback-peers", "--log-file", "stdout"),
        *("-L", "127.0.0.1", "-p", str(port), "-r", "test", "-a", "-u", f"{USER}:{PASSWORD}"),
        *("--userdb", str(folder / "turn.db"), "--pidfile", str(folder / "turn.pid")),
    )
    process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
    try:
        async with asyncio.timeout(10):
            while not await _answers(port):
                assert process.returncode is None, (folder / "turn.log").read_text()
        yield f"turn:127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        log.close()


async def _answers(port: int) -> bool:
    """A binding request (RFC 8489, 6) gets an answer."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.setblocking(False)
        asker.connect(("127.0.0.1", port))
        with contextlib.suppress(OSError, TimeoutError):
            asker.send(b"\x00\x01\x00\x00\x21\x12\xa4\x42" + b"twelve bytes")
            async with asyncio.timeout(0.3):
                return bool(await loop.sock_recv(asker, 512))
    await asyncio.sleep(0.05)
    return False
