"""A real Redis server on a free port of 127.0.0.1, or on a Unix socket only, in a folder of its own."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path

START_S = 20.0


class RedisServer:
    """appendonly: what was told survives `kill`. port 0: Unix socket only. Blocking; stop it in the end."""

    def __init__(self, folder: Path, *, port: int = 0, appendonly: bool = True, options: tuple[str, ...] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, port
        self._socket = folder / "redis.sock"
        self._options = ("--appendonly", "yes" if appendonly else "no", *options)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0" if self.port else f"unix://{self._socket}"

    def start(self) -> None:
        """Returns when it answers."""
        assert self._process is None
        with (self.folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("redis-server", "--port", str(self.port), "--bind", "127.0.0.1"),
                    *("--unixsocket", str(self._socket), "--dir", str(self.folder), "--save", ""),
                    *("--protected-mode", "no", "--daemonize", "no", *self._options),
                ],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"redis does not start:\n{(self.folder / 'redis.log').read_text()}")
            time.sleep(0.01)

    def stop(self) -> None:
        """As an operator does; also when it is paused or dead already."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.kill()
        self.start()

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        self._process.send_signal(signal.SIGCONT)
        self._process.wait(START_S)
        self._process = None
        self._socket.unlink(missing_ok=True)

    def _answers(self) -> bool:
        """A PING, or a complaint that it wants a password, but not that it is still loading."""
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(1)
                client.connect(str(self._socket))
                client.sendall(b"PING\r\n")
                return client.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False
