"""Two machines of a fleet, one edge: the second appears by itself; when it dies only its own calls notice."""

from __future__ import annotations

import ctypes
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.harness.fleet import FleetProcess
from tests.harness.netns import Host, Network, available
from tests.harness.phone import Response
from tests.harness.postgres_records import postgres_records
from tests.harness.records import Record
from tests.harness.talk import Talker
from tests.servers.postgres import Postgres
from tests.servers.redis import RedisServer

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(not available(), reason="network namespaces need root and iproute2"),
]

PLAN = """
tenant: acme
flows:
  main: [answer, {echo: {max_s: 120}}]
routes:
  - {match: {to: echo}, flow: main}
"""
CLONE_NEWNET = 0x40000000
CLOSED_WITHIN_S = 10.0
"""The issue of a machine's death: its calls are closed in the records within this time."""


@contextmanager
def inside(host: Host) -> Iterator[None]:
    """Sockets that this thread makes meanwhile belong to the host (setns(2) is per thread)."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{host.namespace}") as there:
        assert libc.setns(there.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(home.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


class RemoteTalker(Talker):
    """A caller on a host of its own."""

    def __init__(self, host: Host, server: tuple[str, int]) -> None:
        self._address = host.address
        with inside(host):
            super().__init__(server[1])
        self.server = server

    def _bound(self) -> socket.socket:  # type: ignore[override]
        endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        endpoint.bind((self._address, 0))
        endpoint.settimeout(0.2)
        return endpoint

    def sdp(self, direction: str = "sendrecv", formats: str = "0 101", ptime: int = 20) -> str:
        return super().sdp(direction, formats, ptime).replace("127.0.0.1", self._address)

    def request(
        self, method: str, body: str = "", headers: str = "", *, branch: str = "", sequence: int | None = None
    ) -> str:
        text = super().request(method, body, headers, branch=branch, sequence=sequence)
        return text.replace(f"127.0.0.1:{self.sip_port}", f"{self._address}:{self.sip_port}")

    def _follow(self, answer: Response) -> None:
        super()._follow(answer)
        if self._media is not None:
            self._media = (re.findall(r"^c=IN IP4 (\S+)", answer.text, re.M)[-1], self._media[1])

    @property
    def machine(self) -> str:
        """The address that its sound goes to."""
        assert self.media is not None
        return self.media[0]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    try:
        server.make()
        yield server
    finally:
        server.remove()


def machine(folder: Path, host: Host, redis: RedisServer, database: str, *, edge: bool) -> FleetProcess:
    return FleetProcess(
        folder / host.name,
        {"acme.yaml": PLAN},
        {
            "bus": {"prefix": "shared", "lease_s": 2},
            "fleet": {"node": host.name, "heartbeat_s": 0.3, "hang_s": 1.5},
            "edge": {"enabled": edge, "probe_s": 1},
            "sip": {"allow": ["10.77.0.0/24"]},
        },
        calls=4,
        redis=redis,
        store_url=database,
        host=host.address,
        prefix=host.prefix,
    )


@contextmanager
def one_on_each(hosts: list[Host], server: tuple[str, int]) -> Iterator[tuple[RemoteTalker, RemoteTalker]]:
    """A call on the first machine and one on the second. Cells are filled one after the other: who calls in between
    hangs up again."""
    first, second, caller = hosts
    with ExitStack() as stack:
        phones: dict[str, list[RemoteTalker]] = {first.address: [], second.address: []}
        while not all(phones.values()):
            phone = stack.enter_context(RemoteTalker(caller, server).call())
            phones[phone.machine].append(phone)
        for phone in (*phones[first.address][1:], *phones[second.address][1:]):
            phone.bye()
        yield phones[first.address][0], phones[second.address][0]


def test_a_second_machine_joins_and_its_death_is_survived(tmp_path: Path, postgres: Postgres) -> None:
    name = postgres.database()
    database = f"postgresql+asyncpg://sipserver@/{name}?host={postgres.folder}&port={postgres.port}"
    redis = RedisServer(tmp_path / "redis")
    redis.start()
    try:
        with Network() as network:
            hosts = [network.host(each) for each in ("one", "two", "caller")]
            first = machine(tmp_path, hosts[0], redis, database, edge=True)
            second = machine(tmp_path, hosts[1], redis, database, edge=False)
            with first, second:
                first.await_that(lambda now: "two" in now["nodes"] and cells(now) == 2, "the second machine")
                server = (hosts[0].address, first.sip_port)
                with one_on_each(hosts, server) as (kept, lost):
                    since_ns, died_s = time.perf_counter_ns(), time.monotonic()
                    hosts[1].kill()
                    while not (closed := ended(postgres.url(name), lost.call_id)):
                        assert time.monotonic() < died_s + CLOSED_WITHIN_S, closed
                        time.sleep(0.05)
                    assert closed[0].reason == "crash"
                    lost.ended.set()
                    with RemoteTalker(hosts[2], server).call() as fresh:
                        assert fresh.machine == hosts[0].address
                        fresh.bye()
                    kept.echo_again()
                    assert kept.longest_gap_ms(since_ns) <= 60
                    kept.bye()
                first.await_that(lambda now: not now["nodes"] and cells(now) == 1, "a fleet of one")
        reasons = [record.reason for record in postgres_records(postgres.url(name))]
        assert sorted(reasons) == ["caller_hangup"] * (len(reasons) - 1) + ["crash"]
    finally:
        redis.stop()


def ended(url: str, sip_call_id: str) -> list[Record]:
    return [record for record in postgres_records(url, sip_call_id) if record.reason]


def cells(status: dict) -> int:
    """Those that the edge may give new calls to."""
    return int(status["edge"].get("cells_living", 0))
