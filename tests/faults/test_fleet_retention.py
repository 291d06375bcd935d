"""Retention in a whole fleet on PostgreSQL, whose clock is moved by weeks: recordings that are too old go, once.

Several processes look for them all the time. What another tenant keeps longer stays, and so does what is being
recorded; the audit log has a proof of each deletion, and is whole.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sipserver.cli import audit as audit_cli
from tests.harness.fleet import FleetProcess
from tests.harness.moved_clock import NEEDS_LIBRARY, Clock
from tests.harness.records import Record
from tests.harness.talk import Talker
from tests.servers.postgres import Postgres

pytestmark = [pytest.mark.peers, NEEDS_LIBRARY]

DAY_S = 86_400
PLAN = """
tenant: {tenant}
flows:
  main: [answer, {{record: {{stereo: true}}}}, {{echo: {{max_s: 600}}}}]
routes:
  - {{match: {{to: {tenant}}}, flow: main}}
"""
OVERRIDES: dict[str, Any] = {
    "fleet": {"heartbeat_s": 0.3, "hang_s": 10, "gateways": 2},
    "bus": {"lease_s": 5},
    "retention": {
        "recordings_days": 10,
        "events_days": 20,
        "sweep_s": 0.2,
        "tenants": {"zenith": {"recordings_days": 0, "events_days": 0}},
    },
}


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "time")


@pytest.fixture
def fleet(tmp_path: Path, clock: Clock, postgres: Postgres) -> Iterator[FleetProcess]:
    url = postgres.url(postgres.database(migrated=False))
    plans = {f"{tenant}.yaml": PLAN.format(tenant=tenant) for tenant in ("acme", "zenith")}
    running = FleetProcess(tmp_path / "fleet", plans, OVERRIDES, calls=8, store_url=url)
    with clock.running(running):
        yield running


def a_call(fleet: FleetProcess, to: str) -> Record:
    """One that is over and was recorded."""
    with Talker(fleet.sip_port).call(to) as phone:
        phone.bye()
    (record,) = fleet.await_records(1, sip_call_id=phone.call_id)
    return record


def being_recorded(fleet: FleetProcess, sip_call_id: str) -> Record:
    """The record of a call that runs, once it says where its recording is."""
    deadline = time.monotonic() + 20
    while not (found := [each for each in fleet.records(sip_call_id) if each.recording]):
        assert time.monotonic() < deadline, "no recording"
        time.sleep(0.05)
    return found[0]


def entries(fleet: FleetProcess, tenant: str, action: str) -> list[dict[str, Any]]:
    words = ["list", "--tenant", tenant, "--json", "--limit", "500", "--config", str(fleet.settings_file)]
    listed = CliRunner().invoke(audit_cli.app, words)
    assert listed.exit_code == 0, listed.output
    found: list[dict[str, Any]] = json.loads(listed.output) if listed.output.strip() else []
    return [each for each in found if each["action"] == action]


def wait_for(fleet: FleetProcess, tenant: str, action: str, count: int, timeout_s: float = 30) -> list[dict[str, Any]]:
    deadline = time.monotonic() + timeout_s
    while len(found := entries(fleet, tenant, action)) < count:
        assert time.monotonic() < deadline, (found, fleet.log()[-3000:])
        time.sleep(0.2)
    return found


def detail(entry: dict[str, Any]) -> dict[str, Any]:
    told = entry["detail"]
    found: dict[str, Any] = json.loads(told) if isinstance(told, str) else told
    return found


def of_files(fleet: FleetProcess, calls: Sequence[Record]) -> str:
    """What the audit log says of files that are gone: the SHA-256 of their names and contents."""
    folder, paths = fleet.folder / "recordings", [Path(record.recording) for record in calls]
    lines = sorted(f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in paths)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_recordings_that_are_too_old_go_once_with_a_proof_and_nobody_elses(fleet: FleetProcess, clock: Clock) -> None:
    old = [a_call(fleet, "acme") for _ in range(3)]
    proof = of_files(fleet, old)
    theirs = a_call(fleet, "zenith")
    with Talker(fleet.sip_port).call("acme") as phone:
        phone.echo_again()
        files = {record.call_id: Path(record.recording) for record in (*old, theirs)}
        assert all(file.is_file() for file in files.values())
        live = being_recorded(fleet, phone.call_id)
        clock.jump(11 * DAY_S)
        young = a_call(fleet, "acme")
        (swept,) = wait_for(fleet, "acme", "retention.deleted", 1)
        deleted = wait_for(fleet, "acme", "retention.files_deleted", 1)
        assert (detail(swept)["kind"], detail(swept)["count"]) == ("recordings", 3)
        assert not [record.call_id for record in old if files[record.call_id].exists()]
        kept = (files[theirs.call_id], Path(live.recording), Path(young.recording))
        assert [file for file in kept if not file.is_file()] == []
        told = [detail(entry) for entry in deleted]
        assert [(each["files"], each["missing"], each["files_sha256"]) for each in told] == [(3, 0, proof)]
        for action in ("retention.deleted", "retention.files_deleted"):
            assert len(entries(fleet, "acme", action)) == 1, "one process does it"
            assert not entries(fleet, "zenith", action)
        after = {record.call_id: record for record in fleet.records()}
        assert [after[record.call_id].recording for record in old] == ["", "", ""]
        assert all(after[record.call_id].kinds == record.kinds for record in old), "events are kept for longer"
        phone.echo_again()
        phone.bye()  # by its own clock it has lasted for seconds, so it is as old as the others now
    fleet.await_records(1, sip_call_id=phone.call_id)
    verified = CliRunner().invoke(audit_cli.app, ["verify", "--config", str(fleet.settings_file)])
    assert verified.exit_code == 0, verified.output
    assert "acme" in verified.output
