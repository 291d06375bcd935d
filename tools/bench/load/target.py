"""What a load is sent to: a fleet, several single servers behind the same edge, or somebody else's server.

Owns the differences between them. Refuses to know loads. Benches see `Target` alone.

`several` is what a fleet would be without its supervisor, Redis and journal: `mode: single` servers as cells. It tells
what those cost, and serves to work on the benches themselves.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import redis
import yaml

from tests.harness.fleet import FleetProcess, merged, port_block
from tests.harness.server import ROOT, ServerProcess, free_sip_port
from tests.servers.postgres import Postgres
from tools.bench.load.usage import Roots

PLAN_FILE = "bench.yaml"
CALLS_A_SERVER = 3


@dataclass(frozen=True, slots=True)
class Left:
    """What must be nothing when no call lives. loads: calls that the edge counts on cells; calls: that cells have;
    limits: places of tenants and trunks that are taken; restarts: of processes, since the start."""

    loads: int = 0
    calls: int = 0
    limits: int = 0
    restarts: int = 0

    @property
    def nothing(self) -> bool:
        return not (self.loads or self.calls or self.limits)


class Target(Protocol):
    """Use as a context manager. name: for tables. address: where INVITEs go. cells: how many there are (0: unknown)."""

    name: str
    address: tuple[str, int]
    cells: int

    def roots(self) -> Roots:
        """Its processes, for `usage`; empty where nobody told which they are."""
        ...

    def redis_commands(self) -> int:
        """Since its start, of all clients; 0 without Redis."""
        ...

    def rows_written(self) -> int:
        """Into the tables of calls and events, since its start."""
        ...

    def left(self) -> Left: ...

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class FleetTarget:
    """`sipserver run` with `mode: fleet`, a Redis and a PostgreSQL of its own."""

    name = "fleet"

    def __init__(self, folder: Path, plan: str, calls: int, overrides: Mapping[str, Any] | None = None) -> None:
        self._folder, self._plan, self._calls = folder, plan, calls
        self._overrides: Mapping[str, Any] = overrides or {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self.postgres = Postgres()
            self._stack.callback(self.postgres.remove)
            self.postgres.make()
            self._database = self.postgres.database(migrated=False)
            self.fleet = FleetProcess(
                self._folder,
                {PLAN_FILE: self._plan},
                merged({"log": {"level": "warning"}}, self._overrides),
                calls=self._calls,
                store_url=self.postgres.url(self._database),
            )
            self._stack.enter_context(self.fleet)
        except BaseException:
            self._stack.close()
            raise
        self.address = (self.fleet.host, self.fleet.sip_port)
        self.cells = len(self.fleet.of("cell"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def roots(self) -> Roots:
        """Every process that carries the fleet's mark, the dead supervisor's children too."""
        return {
            "supervisor": self.fleet.members(),
            "redis": [int((self.fleet.folder / "redis.pid").read_text())],
            "postgres": [int((self.postgres.folder / "cluster/postmaster.pid").read_text().split()[0])],
        }

    def redis_commands(self) -> int:
        with redis.Redis.from_url(self.fleet.redis.url) as server:
            return int(server.info("stats")["total_commands_processed"])

    def rows_written(self) -> int:
        with suppress(AssertionError):  # the tables are not there yet
            counted = "SELECT (SELECT count(*) FROM calls) + (SELECT count(*) FROM events)"
            return int(self.postgres.sql(counted, self._database))
        return 0

    def left(self) -> Left:
        status = self.fleet.status()
        return Left(
            loads=edge_loads(self.fleet.settings_file),
            calls=int(status["calls"]),
            limits=self._limits(),
            restarts=sum(int(child["restarts"]) for child in status["children"]),
        )

    def _limits(self) -> int:
        """Places of tenants and trunks in use, as all processes told Redis (`bus.limits_script`: `held own`)."""
        with redis.Redis.from_url(self.fleet.redis.url, decode_responses=True) as server:
            return sum(
                int(str(places).split()[1])
                for key in server.scan_iter(f"{self.fleet.settings['bus']['prefix']}:limit:*")
                for run, places in server.hgetall(key).items()
                if run != "sum"
            )


class SeveralTarget:
    """Single servers as cells behind the edge; no more than a few: each is a whole server."""

    name = "several"

    def __init__(self, folder: Path, plan: str, calls: int, overrides: Mapping[str, Any] | None = None) -> None:
        self._folder, self._plan, self._overrides = folder, plan, overrides or {}
        self.cells = -(-calls // CALLS_A_SERVER)
        self._stack = ExitStack()
        self.servers: list[ServerProcess] = []

    def __enter__(self) -> Self:
        own = {"sip": {"behind_edge": True, "allow": ["127.0.0.1"], "tcp": False}, "log": {"level": "warning"}}
        try:
            for number in range(self.cells):
                server = ServerProcess(self._folder / f"server-{number}", {PLAN_FILE: self._plan})
                server.settings_file.write_text(
                    yaml.safe_dump(
                        merged(yaml.safe_load(server.settings_file.read_text()), merged(own, self._overrides))
                    )
                )
                self.servers.append(self._stack.enter_context(server))
            self.address = ("127.0.0.1", free_sip_port())
            self._start_edge()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _start_edge(self) -> None:
        self._settings = self._folder / "edge.yaml"
        folder = Path(tempfile.mkdtemp(prefix="edge-"))  # a socket's path holds 107 bytes (unix(7))
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        listen = [{"transport": "udp", "host": self.address[0], "port": self.address[1]}]
        edge = {"folder": str(folder), "listen": listen, "inside_port": free_sip_port(), "open": True}
        self._settings.write_text(yaml.safe_dump({"edge": {**edge, "flood": {"requests": 1_000_000}}}))
        cells = (f"127.0.0.1:{server.sip_port}:{CALLS_A_SERVER}" for server in self.servers)
        said = _sipserver(
            "edge", "start", *(word for cell in cells for word in ("--cell", cell)), config=self._settings
        )
        self._edge = int(said.rpartition("pid ")[2])
        self._stack.callback(lambda: subprocess.run(["kill", str(self._edge)], check=False))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def roots(self) -> Roots:
        return {"cell": [server.pid for server in self.servers], "kamailio": [self._edge]}

    def redis_commands(self) -> int:
        return 0

    def rows_written(self) -> int:
        return 0

    def left(self) -> Left:
        return Left(loads=edge_loads(self._settings))


class PeerTarget:
    """Any other SIP server that answers the same scenarios: extension `echo` echoes, `quick` answers and waits.

    pid: its process, for CPU and memory; 0: not told."""

    name = "peer"
    cells = 0

    def __init__(self, place: str, pid: int) -> None:
        host, _, port = place.rpartition(":")
        self.address = (host or place, int(port) if host else 5060)
        self._pid = pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def roots(self) -> Roots:
        return {"peer": [self._pid]} if self._pid else {}

    def redis_commands(self) -> int:
        return 0

    def rows_written(self) -> int:
        return 0

    def left(self) -> Left:
        return Left()


def edge_loads(settings: Path) -> int:
    """Calls that the dispatcher counts on all cells; -1 where it does not answer."""
    try:
        state = json.loads(_sipserver("edge", "status", "--json", config=settings))
    except (RuntimeError, ValueError):
        return -1
    return sum(int(cell["calls"]) for cell in state["cells"])


def line_ports(count: int) -> Sequence[int]:
    """Ports for the callers' sound, each with the next one free for RTCP."""
    first, _ = port_block(2 * count)
    return [first + 2 * number for number in range(count)]


def _sipserver(*words: str, config: Path) -> str:
    """What a command prints. Raises RuntimeError with its complaint."""
    command = [sys.executable, "-m", "sipserver", *words, "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    if done.returncode != 0:
        raise RuntimeError(f"sipserver {' '.join(words)}: {done.stderr}")
    return done.stdout
