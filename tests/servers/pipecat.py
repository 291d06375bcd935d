"""Pipecat's echo (tools/peers/pipecat_echo.py) as a child process in its own environment."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness.server import ROOT, free_port

PYTHON = ROOT / "build/pipecat/venv/bin/python"


@contextmanager
def pipecat_echo(log: Path) -> Iterator[tuple[int, int]]:
    """The port at which it listens, and its process id. Fails when it does not say `ready`; log: what it said then."""
    port = free_port(socket.SOCK_STREAM)
    with log.open("wb") as complaints:
        process = subprocess.Popen(
            [str(PYTHON), str(ROOT / "tools/peers/pipecat_echo.py"), "--port", str(port)],
            stdout=subprocess.PIPE,
            stderr=complaints,
            stdin=subprocess.DEVNULL,
        )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n", log.read_text(errors="replace")[-2000:]
        yield port, process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        if process.stdout is not None:
            process.stdout.close()
