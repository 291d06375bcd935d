"""PostgreSQL behind a fleet stops, dies or stands still while calls come and go: none hears it, no record is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.faults.fleet_calls import GAP_MS, PLAN, calling, complete
from tests.harness.fleet import FleetProcess
from tests.harness.talk import Talker
from tests.servers.postgres import Postgres

pytestmark = pytest.mark.peers

OVERRIDES = {"fleet": {"heartbeat_s": 0.3, "hang_s": 3}, "bus": {"lease_s": 2}}
CALLS = 12


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    server = Postgres()
    try:
        server.make()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, database: Postgres) -> Iterator[FleetProcess]:
    name = database.database(migrated=False)
    database.sql(f"ALTER DATABASE {name} SET synchronous_commit = on")  # else what it took is lost when it is killed
    url = database.url(name)
    folder = tmp_path_factory.mktemp("fleet")
    with FleetProcess(folder, {"acme.yaml": PLAN}, OVERRIDES, calls=12, store_url=url) as running:
        yield running


@contextmanager
def killed(database: Postgres) -> Iterator[None]:
    database.kill()
    try:
        yield
    finally:
        database.start()


@pytest.mark.parametrize("away", [Postgres.stopped, killed, Postgres.paused], ids=["stopped", "killed", "paused"])
def test_a_database_that_is_away_costs_no_call_and_no_record(
    fleet: FleetProcess, database: Postgres, tmp_path: Path, away: Callable[[Postgres], AbstractContextManager[None]]
) -> None:
    known = {record.call_id for record in fleet.records()}
    with Talker(fleet.sip_port).call() as phone:
        since_ns = time.perf_counter_ns()
        with calling(fleet, tmp_path / "load", total=CALLS, rate=5, at_once=6) as traffic:
            while traffic.up < 3:
                assert traffic.sipp.running
                time.sleep(0.05)
            with away(database):
                with Talker(fleet.sip_port).call() as within:
                    within.bye()
                behind = fleet.await_that(lambda now: now["records_behind"] > 0, "what waits for the database")
                assert behind["state"] == "serving"
                traffic.sipp.wait()
            phone.echo_again()
            assert phone.longest_gap_ms(since_ns) <= GAP_MS
        traffic.assert_good()
        phone.bye()
    fleet.await_that(lambda now: now["records_behind"] == 0, "a database that has everything")
    found = [record for record in fleet.await_records(len(known) + CALLS + 2) if record.call_id not in known]
    assert len(found) == CALLS + 2
    assert all(map(complete, found)), [(each.reason, each.kinds) for each in found if not complete(each)]
    assert {each.reason for each in found} == {"caller_hangup"}
