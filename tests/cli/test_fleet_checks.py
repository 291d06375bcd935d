"""The doctor on a fleet's settings: what works, and each thing that would stop it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sipserver import settings as settings_file
from sipserver.cli import fleet_checks
from sipserver.cli.checks import Verdict
from sipserver.settings import Settings
from tests.harness.fleet import merged
from tests.servers.redis import RedisServer


def fleet(folder: Path, changes: dict[str, Any] | None = None) -> Settings:
    base = {
        "mode": "fleet",
        "bus": {"url": f"unix://{folder}/redis/redis.sock", "spool": str(folder / "spool")},
        "store": {"url": f"sqlite+aiosqlite:///{folder}/calls.db"},
        "fleet": {"calls": 12, "runtime": str(folder)},
        "edge": {"folder": str(folder / "edge"), "listen": [{"transport": "udp", "host": "127.0.0.1", "port": 15060}]},
        "trunks": [{"name": "here", "sources": ["127.0.0.0/8"]}],
    }
    file = folder / "sipserver.yaml"
    file.write_text(yaml.safe_dump(merged(base, changes or {})))
    return settings_file.load(file)


def test_a_single_server_has_none_of_it() -> None:
    assert fleet_checks.fleet(Settings()) == []


def test_everything_there(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path / "redis")
    redis.start()
    try:
        found = {finding.subject: finding for finding in fleet_checks.fleet(fleet(tmp_path))}
    finally:
        redis.stop()
    assert {finding.verdict for finding in found.values()} == {Verdict.OK}
    assert found["cells"].what.startswith("4 of 3 calls")
    assert found["Redis"].what == "answers"
    assert found["database"].what == "answers, without tables yet"


def test_redis_that_is_away(tmp_path: Path) -> None:
    assert fleet_checks.bus(fleet(tmp_path)).verdict is Verdict.PROBLEM


@pytest.mark.parametrize(
    ("changes", "subject", "says"),
    [
        ({"fleet": {"calls": 5000}}, "cells", "fleet.sip_ports"),
        ({"sip": {"rtp_ports": [20000, 20010]}}, "cells", "sip.rtp_ports"),
        ({"fleet": {"runtime": "/tmp/" + "x" * 100}}, "runtime folder", "fleet.runtime"),
        ({"edge": {"program": "no-such-kamailio"}}, "edge", "tools/setup fleet"),
        ({"edge": {"rtpengine": {"program": "no-such-relay"}}}, "edge", "rtpengine"),
        ({"trunks": []}, "trunks", "under trunks"),
    ],
)
def test_what_would_stop_a_call(tmp_path: Path, changes: dict[str, Any], subject: str, says: str) -> None:
    settings = fleet(tmp_path, changes)
    problems = [
        finding
        for finding in (*fleet_checks.cells(settings), *fleet_checks.edge(settings))
        if finding.verdict is Verdict.PROBLEM
    ]
    assert [finding.subject for finding in problems] == [subject]
    assert says in problems[0].what + problems[0].todo


def test_a_laboratory_is_warned(tmp_path: Path) -> None:
    found = fleet_checks.edge(fleet(tmp_path, {"edge": {"open": True}}))
    assert [finding.verdict for finding in found if finding.subject == "trunks"] == [Verdict.WARNING]


def test_a_database_that_is_away_only_delays_records(tmp_path: Path) -> None:
    settings = fleet(tmp_path, {"store": {"url": "postgresql+asyncpg://nobody@127.0.0.1:9/none"}})
    assert fleet_checks.database(settings).verdict is Verdict.WARNING
