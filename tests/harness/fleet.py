"""A whole fleet as its users run it: Redis, a database, and `sipserver run` with `mode: fleet`, in a folder of its own.

Owns settings on free ports, the start and the end, and the way to each process of it. Refuses to know what a test does
to them. Every process carries MARK in its environment, by which it is found again also when its parents are dead: what
`stop` and `kill` leave behind is nothing.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.harness.records import Record, records
from tests.harness.server import ROOT, free_port, free_sip_port
from tests.servers.redis import RedisServer

MARK = "SIPSERVER_FLEET_OF"
FIRST_PORT, LAST_PORT = 10_000, 32_000
"""Below the ports that the system gives to whoever asks for any."""
GONE_S = 10.0
PORTS_A_CALL = 6
"""Two are needed; a second set of cells fits beside the first, and a port may be held for a moment after its call."""


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the fleet. kind: `supervisor`, `zygote`, `cell`, `writer`, `gateway`, `speech`, `kamailio`,
    `rtpengine`. port: of a cell's SIP socket. calls: as of its last heartbeat."""

    kind: str
    name: str
    pid: int
    state: str = ""
    port: int = 0
    calls: int = 0
    run: str = ""


class FleetProcess:
    """One machine of a fleet. `start` blocks until READY=1; `stop` sends SIGTERM and returns the exit code.

    dialplans: file name -> YAML text, or a folder. overrides: merged into the settings, dictionaries into dictionaries.
    calls: how many it holds. redis: shared with other machines; without one it has its own. store_url: SQLite in the
    folder by default. prefix: put before the command, e.g. `ip netns exec NAME`.
    """

    def __init__(
        self,
        folder: Path,
        dialplans: dict[str, str] | Path,
        overrides: Mapping[str, Any] | None = None,
        *,
        calls: int = 12,
        redis: RedisServer | None = None,
        store_url: str = "",
        host: str = "127.0.0.1",
        prefix: Sequence[str] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.host, self._prefix = folder, host, tuple(prefix)
        self.mark = uuid.uuid4().hex
        self.sip_port, self.http_port = free_sip_port(), free_port(socket.SOCK_STREAM)
        self.log_file, self.settings_file = folder / "fleet.log", folder / "sipserver.yaml"
        self.runtime = (
            Path(tempfile.gettempdir()) / f"fleet-{self.mark[:12]}"
        )  # a socket's path holds 107 bytes (unix(7))
        self.database = folder / "sipserver.db"
        self.store_url = store_url or f"sqlite+aiosqlite:///{self.database}"
        self._own_redis = redis is None
        self.redis = redis or RedisServer(
            folder / "redis", port=free_port(socket.SOCK_STREAM), options=("--pidfile", str(folder / "redis.pid"))
        )
        self.process: subprocess.Popen[bytes] | None = None
        if isinstance(dialplans, Path):
            self.dialplans = dialplans
        else:
            self.dialplans = folder / "dialplans"
            self.dialplans.mkdir(exist_ok=True)
            for name, text in dialplans.items():
                (self.dialplans / name).write_text(text)
        self.settings = merged(self._settings(calls), overrides or {})
        self.settings_file.write_text(yaml.safe_dump(self.settings, sort_keys=False))

    def _settings(self, calls: int) -> dict[str, Any]:
        folder, host = self.folder, self.host
        sip_ports = port_block(max(2 * calls, 20), host)
        rtp_ports = port_block(PORTS_A_CALL * calls + 40, host, beside=sip_ports)
        return {
            "mode": "fleet",
            "dialplans": str(self.dialplans),
            "sip": {"host": host, "media_host": host, "rtp_ports": list(rtp_ports), "inbound_calls": 4},
            "http": {"host": host, "port": self.http_port},
            "speech": {"models": str(ROOT / "var/models")},
            "calls": {"recordings": str(folder / "recordings"), "drain_s": 5},
            "store": {"url": self.store_url},
            "bus": {"url": self.redis.url, "prefix": f"test-{self.mark[:8]}", "spool": str(folder / "spool")},
            "fleet": {
                "node": "one",
                "calls": calls,
                "host": host,
                "sip_ports": list(sip_ports),
                "runtime": str(self.runtime),
                "gateways": 1,
                "speech_workers": 0,
            },
            "edge": {
                "folder": str(self.runtime / "edge"),
                "listen": [
                    {"transport": "udp", "host": host, "port": self.sip_port},
                    {"transport": "tcp", "host": host, "port": self.sip_port},
                ],
                "inside": host,
                "inside_port": free_sip_port(),
                "open": True,
                "flood": {"requests": 1_000_000},
            },
            "log": {"level": "info"},
        }

    # --- lifetime -----------------------------------------------------------------------------------------------------

    def start(self, timeout_s: float = 60) -> FleetProcess:
        """Redis too, if it is our own and does not run. Raises AssertionError with the log when it is not ready in
        time; nothing of it is left then."""
        self.runtime.mkdir(mode=0o700, exist_ok=True)
        if self._own_redis and self.redis._process is None:
            self.redis.start()
        try:
            self.start_supervisor(timeout_s)
        except BaseException:
            self._clear()
            raise
        return self

    def start_supervisor(self, timeout_s: float = 60) -> None:
        """A supervisor alone; processes of a dead one may live on, and it adopts or replaces them."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            address = self.runtime / "notify.sock"
            address.unlink(missing_ok=True)
            notify.bind(str(address))
            notify.settimeout(0.5)
            environment = {**os.environ, "NOTIFY_SOCKET": str(address), "PYTHONUNBUFFERED": "1", MARK: self.mark}
            command = [*self._prefix, sys.executable, "-m", "sipserver", "run", "--config", str(self.settings_file)]
            with self.log_file.open("ab") as log:
                self.process = subprocess.Popen(
                    command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, cwd=ROOT
                )
            deadline = time.monotonic() + timeout_s
            while time.monotonic() < deadline and self.process.poll() is None:
                with suppress(TimeoutError):
                    if b"READY=1" in notify.recv(4096):
                        return
        raise AssertionError(f"the fleet did not become ready:\n{self.log()[-6000:]}")

    def stop(self, timeout_s: float = 40) -> int:
        """SIGTERM, drain, end; the exit code. Raises TimeoutExpired, everything killed, when it hangs."""
        assert self.process is not None
        try:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
            return self.process.wait(timeout_s)
        finally:
            self._clear()

    def process_signal(self, number: signal.Signals) -> None:
        """To the supervisor."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill_all(self) -> None:
        """SIGKILL for every process of this fleet but Redis, whoever its parent is by now."""
        deadline = time.monotonic() + GONE_S
        while members := self.members():
            for pid in members:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if self.process is not None:
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(0.2)
            assert time.monotonic() < deadline, f"processes {members} do not die"
            time.sleep(0.02)

    def _clear(self) -> None:
        self.kill_all()
        shutil.rmtree(self.runtime, ignore_errors=True)
        if self._own_redis:
            self.redis.stop()

    def __enter__(self) -> FleetProcess:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- its processes ------------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The supervisor's."""
        assert self.process is not None
        return self.process.pid

    def members(self) -> list[int]:
        """Every process of this fleet that lives, Redis and the database excepted."""
        mark, found = f"{MARK}={self.mark}".encode(), []
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != os.getpid():
                with suppress(OSError):
                    if mark in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                        found.append(int(entry))
        return found

    def ask(self, verb: str, timeout_s: float = 10) -> dict[str, Any]:
        """The supervisor's answer on its socket: `status`, `drain`, `undrain`, `restart`, `reload`. Raises OSError when
        none listens, AssertionError when it refuses."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(timeout_s)
            line.connect(str(self.runtime / "supervisor.sock"))
            line.sendall(json.dumps({"do": verb}).encode() + b"\n")
            with line.makefile("rb") as answer:
                said = json.loads(answer.readline())
        assert "ok" in said, said
        fields: dict[str, Any] = said["ok"]
        return fields

    def status(self) -> dict[str, Any]:
        return self.ask("status")

    def parts(self) -> list[Part]:
        """What the supervisor knows, itself, and the servers that it keeps."""
        status = self.status()
        found = [
            Part("supervisor", "supervisor", int(status["pid"])),
            Part("zygote", "zygote", int(status["warm_parent"])),
            *(
                Part(each["kind"], each["name"], each["pid"], each["state"], each["port"], each["calls"], each["run"])
                for each in status["children"]
            ),
        ]
        for pid in self.members():
            with suppress(OSError):
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                if name in ("kamailio", "rtpengine"):
                    found.append(Part(name, name, pid))
        return found

    def of(self, kind: str) -> list[Part]:
        """The parts of a kind by name; of Kamailio the main process first."""
        return sorted((part for part in self.parts() if part.kind == kind), key=lambda part: (part.name, part.pid))

    def pids(self) -> dict[str, list[int]]:
        """By kind, for those who measure: `usage.snapshot` follows them to their children."""
        found: dict[str, list[int]] = defaultdict(list)
        for part in self.parts():
            found[part.kind].append(part.pid)
        return dict(found)

    def signal(self, kind: str, number: signal.Signals = signal.SIGKILL, index: int = 0) -> Part:
        """To the index-th of its kind; returns whom it hit."""
        part = self.of(kind)[index]
        os.kill(part.pid, number)
        return part

    def await_that(
        self, true: Callable[[dict[str, Any]], bool], what: str, timeout_s: float = 20, *, pause_s: float = 0.02
    ) -> dict[str, Any]:
        """The status once it is so. Fails after timeout_s; a supervisor that is away meanwhile is asked again. pause_s:
        between two questions; each costs the supervisor some milliseconds.
        """
        deadline = time.monotonic() + timeout_s
        status: dict[str, Any] = {}
        while True:
            with suppress(OSError, ValueError):
                status = self.status()
                if true(status):
                    return status
            assert time.monotonic() < deadline, f"{what} did not come true: {status}\n{self.log()[-3000:]}"
            time.sleep(pause_s)

    def await_idle(self, timeout_s: float = 20) -> dict[str, Any]:
        """Until no call lives and every cell is ready again, those included that wait before they are started."""
        return self.await_that(
            lambda status: (
                status["calls"] == 0
                and status["cells_ready"] >= status["cells_wanted"]
                and all(each["state"] == "ready" for each in status["children"] if each["kind"] == "cell")
            ),
            "an idle fleet",
            timeout_s,
        )

    # --- what it left -------------------------------------------------------------------------------------------------

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def await_log(self, text: str, timeout_s: float = 10) -> str:
        """The log once it says so: lines are written by a thread of their own."""
        deadline = time.monotonic() + timeout_s
        while text not in (log := self.log()):
            assert time.monotonic() < deadline, f"{text!r} is not in the log:\n{log[-3000:]}"
            time.sleep(0.02)
        return log

    def get(self, path: str, timeout_s: float = 5) -> str:
        with urllib.request.urlopen(f"http://{self.host}:{self.http_port}{path}", timeout=timeout_s) as answer:
            return str(answer.read().decode())

    def await_metric(self, line: str, timeout_s: float = 10) -> None:
        """Until it is told: gateways ask the supervisor now and then."""
        deadline = time.monotonic() + timeout_s
        while line not in (told := self.get("/metrics")):
            assert time.monotonic() < deadline, told
            time.sleep(0.05)

    def records(self, sip_call_id: str = "") -> list[Record]:
        """Of SQLite while it is written, or of PostgreSQL, in the order in which the calls began."""
        if self.store_url.startswith("sqlite"):
            with suppress(sqlite3.OperationalError):  # the tables are not there yet
                return records(self.database, sip_call_id)
            return []
        from tests.harness.postgres_records import postgres_records

        return postgres_records(self.store_url, sip_call_id)

    def await_records(
        self, count: int, *, sip_call_id: str = "", closed: bool = True, mended: bool = False, timeout_s: float = 20
    ) -> list[Record]:
        """Once there are so many, all of them closed if wanted, and the recordings of crashed ones mended, which the
        writer does after it has closed them. Fails after timeout_s."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = self.records(sip_call_id)
            open_ones = [record for record in found if closed and not record.reason]
            unmended = ("failed", "recording") if mended else ()
            broken = [record for record in found if record.reason and record.recording_status in unmended]
            if len(found) >= count and not open_ones and not broken:
                return found
            assert time.monotonic() < deadline, [
                (each.sip_call_id, each.reason, each.recording_status, each.kinds[-3:]) for each in found
            ]
            time.sleep(0.05)


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Dictionaries into dictionaries; everything else replaces."""
    result = dict(base)
    for key, value in over.items():
        known = result.get(key)
        result[key] = merged(known, value) if isinstance(known, dict) and isinstance(value, Mapping) else value
    return result


def port_block(size: int, host: str = "127.0.0.1", beside: tuple[int, int] | None = None) -> tuple[int, int]:
    """First (even) and last of `size` UDP ports that were all free a moment ago, none of them in `beside`."""
    for _ in range(200):
        first = random.randrange(FIRST_PORT, LAST_PORT - size, 2)
        if beside is not None and first <= beside[1] and beside[0] <= first + size:
            continue
        probes: list[socket.socket] = []
        try:
            for port in range(first, first + size):
                probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                probes.append(probe)
                probe.bind(("" if host != "127.0.0.1" else host, port))
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()
        return first, first + size - 1
    raise AssertionError(f"no {size} free ports in a row")
