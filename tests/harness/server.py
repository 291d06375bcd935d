"""`sipserver run` as a child process on free ports, ready when it says so by sd_notify."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]


def free_port(kind: socket.SocketKind = socket.SOCK_DGRAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_sip_port() -> int:
    """A port that was free a moment ago for UDP and for TCP."""
    while True:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        ):
            tcp.bind(("127.0.0.1", 0))
            port = int(tcp.getsockname()[1])
            try:
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def free_range(size: int = 60) -> tuple[int, int]:
    """First and last of `size` UDP ports that were all free a moment ago; the first is even."""
    while True:
        first = free_port() & ~1
        if first + size > 65_000:
            continue
        probes: list[socket.socket] = []
        try:
            for port in range(first, first + size):
                probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                probes.append(probe)
                probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()
        return first, first + size - 1


class ServerProcess:
    """One server. `start` blocks until READY=1; `stop` sends SIGTERM and returns the exit code.

    dialplans: file name -> YAML text. overrides: merged into the settings (one level deep).
    """

    def __init__(self, folder: Path, dialplans: dict[str, str] | Path, overrides: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.sip_port, self.http_port = free_sip_port(), free_port(socket.SOCK_STREAM)
        self.rtp_ports = free_range()
        self.log_file = folder / "server.log"
        self.settings_file = folder / "sipserver.yaml"
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(dialplans, Path):
            self.dialplans = dialplans
        else:
            self.dialplans = folder / "dialplans"
            self.dialplans.mkdir(exist_ok=True)
            for name, text in dialplans.items():
                (self.dialplans / name).write_text(text)
        settings: dict[str, Any] = {
            "dialplans": str(self.dialplans),
            "sip": {"host": "127.0.0.1", "port": self.sip_port, "rtp_ports": list(self.rtp_ports)},
            "http": {"host": "127.0.0.1", "port": self.http_port},
            "speech": {"models": str(ROOT / "var/models")},
            "calls": {"recordings": str(folder / "recordings"), "drain_s": 2},
            "store": {"url": f"sqlite+aiosqlite:///{folder}/sipserver.db"},
            "log": {"level": "info"},
        }
        for key, value in (overrides or {}).items():
            settings[key] = {**settings.get(key, {}), **value} if isinstance(value, dict) else value
        self._store_url: str = settings["store"]["url"]
        self.settings_file.write_text(yaml.safe_dump(settings, sort_keys=False))
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def database(self) -> Path:
        return self.folder / "sipserver.db"

    @property
    def store(self) -> Path | str:
        """Where its records are: that file, or the URL of the PostgreSQL that the settings name."""
        return self.database if self._store_url.startswith("sqlite") else self._store_url

    def start(self, timeout_s: float = 60) -> ServerProcess:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            address = str(self.folder / "notify.sock")
            Path(address).unlink(missing_ok=True)
            notify.bind(address)
            environment = {**os.environ, "NOTIFY_SOCKET": address, "PYTHONUNBUFFERED": "1"}
            with self.log_file.open("ab") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "sipserver", "run", "--config", str(self.settings_file)],
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    env=environment,
                    cwd=ROOT,
                )
            deadline = time.monotonic() + timeout_s
            notify.settimeout(0.5)
            while time.monotonic() < deadline:
                try:
                    if b"READY=1" in notify.recv(4096):
                        return self
                except TimeoutError:
                    if self.process.poll() is not None:
                        break
        self.kill()
        raise AssertionError(f"the server did not become ready:\n{self.log()[-4000:]}")

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, timeout_s: float = 20) -> int:
        """SIGTERM if it still runs, then its exit code. Raises TimeoutExpired, the process killed, when it hangs."""
        assert self.process is not None
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = 20) -> int:
        """The exit code of one that goes by itself, as a second SIGTERM would hurry it. Raises as `stop` does."""
        assert self.process is not None
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL: no chance to tidy up. `start` may follow."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    def get(self, path: str, timeout_s: float = 5) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=timeout_s) as answer:
            return str(answer.read().decode())

    def takes_calls(self) -> bool:
        """What /readyz says: no longer once it drains."""
        try:
            return bool(self.get("/readyz"))
        except urllib.error.HTTPError as no:
            no.close()
            return False

    def cpu_s(self) -> float:
        """User and system CPU seconds of the process so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mb(self) -> float:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise AssertionError("no VmRSS")

    def __enter__(self) -> ServerProcess:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
