"""A real PostgreSQL in a folder of its own, beside one that the machine may run already.

`postgres` (session fixture) is one server for all tests; each test takes a fresh database, copied from a template that
has the tables. A test that stops, kills or pauses the server leaves it running again.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from sipserver.store import migrations

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))
READY_S = 30
KEPT = 5
GUARDED = "guarded"
"""The role that needs PASSWORD; `sipserver`, the usual one, is trusted."""
PASSWORD = "correct horse"

_ACCESS = f"""
local all all trust
host all {GUARDED} 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
"""
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "40",
    "max_worker_processes": "0",
    "shared_buffers": "16MB",
    "autovacuum": "off",
    "logging_collector": "off",
    "timezone": "America/New_York",  # ours must not depend on it
}


class Postgres:
    """One server. It refuses to run as root, so that a test that is root hands it to the user `postgres`."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self.port = _free_port()
        self._cluster = self.folder / "cluster"
        self._names = itertools.count(1)
        self._template = ""
        self._identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            self._identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(self.folder, user.pw_uid, user.pw_gid)

    # --- lifetime -----------------------------------------------------------------------------------------------------

    def make(self) -> None:
        """The cluster, its roles, and the server running."""
        self._run(
            "initdb", "-D", str(self._cluster), "-U", "sipserver", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"
        )
        with (self._cluster / "postgresql.conf").open("a") as settings:
            settings.writelines(f"{name} = '{value}'\n" for name, value in _SETTINGS.items())
        (self._cluster / "pg_hba.conf").write_text(_ACCESS)
        self.start()
        self.sql(f"CREATE ROLE {GUARDED} LOGIN PASSWORD '{PASSWORD}'")

    def start(self) -> None:
        """Start and wait until it answers; on the same port as before. It is nobody's child then (pg_ctl forks it)."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1"
        self._control("start", "-l", str(self.folder / "log"), "-o", options)

    def stop(self) -> None:
        """At once, without waiting for connections (they are told)."""
        self._control("stop", "-m", "fast")

    def kill(self) -> None:
        """As if the power had failed: every process of it."""
        members = self.processes
        for member in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)
        deadline = time.monotonic() + READY_S
        while any(map(_lives, members)):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        for lock in (self._lock, self.folder / f".s.PGSQL.{self.port}.lock"):
            lock.unlink()  # if nobody reaps the dead server it would still count as running

    def restart(self) -> None:
        self.stop()
        self.start()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Nobody listens on its port meanwhile."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """It takes connections and answers nothing meanwhile (SIGSTOP for the server and its children)."""
        members = self.processes
        for member in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, signal.SIGSTOP)
        try:
            yield
        finally:
            for member in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member, signal.SIGCONT)

    def remove(self) -> None:
        if self._lock.exists():
            self._control("stop", "-m", "immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- databases ----------------------------------------------------------------------------------------------------

    def database(self, *, migrated: bool = True) -> str:
        """A new one; returns its name. The one before the last few is removed: each takes 8 MB."""
        number = next(self._names)
        name = f"records_{number}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {self._migrated() if migrated else 'template0'}")
        if number > KEPT:
            self.sql(f"DROP DATABASE records_{number - KEPT} WITH (FORCE)")
        return name

    def url(self, database: str, *, role: str = "sipserver", driver: str = "asyncpg") -> str:
        return f"postgresql+{driver}://{role}@127.0.0.1:{self.port}/{database}"

    def sql(self, statement: str, database: str = "postgres") -> str:
        """What psql prints, unaligned and without headers. Fails when the statement does."""
        where = ("-h", str(self.folder), "-p", str(self.port), "-U", "sipserver", "-d", database)
        return self._run("psql", *where, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement).strip()

    def _migrated(self) -> str:
        if not self._template:
            name = "template_records"
            self.sql(f"CREATE DATABASE {name} TEMPLATE template0")
            migrate(self.url(name))
            self._template = name
        return self._template

    def _control(self, *words: str) -> None:
        self._run("pg_ctl", *words, "-D", str(self._cluster), "-w", "-s", "-t", f"{READY_S:.0f}")

    @property
    def _lock(self) -> Path:
        return self._cluster / "postmaster.pid"

    @property
    def processes(self) -> list[int]:
        server = int(self._lock.read_text().split()[0])
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        return [server, *map(int, children)]

    def _run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [PROGRAMS[-1] / program, *arguments],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            **self._identity,
        )
        assert done.returncode == 0, done.stdout
        return str(done.stdout)


def migrate(url: str) -> None:
    """Make the tables, from a thread without a loop."""

    async def work() -> None:
        engine = create_async_engine(url, poolclass=sa.NullPool)
        async with engine.begin() as connection:
            await connection.run_sync(migrations.apply)
        await engine.dispose()

    worker = threading.Thread(target=lambda: asyncio.run(work()), name="migrate")
    worker.start()
    worker.join()


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    try:
        server.make()
        yield server
    finally:
        server.remove()
