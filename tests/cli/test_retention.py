"""`sipserver retention run`: what of one tenant cannot be deleted is said, and the exit status says it, too."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sipserver.cli.retention import app
from sipserver.settings import load
from sipserver.store.audit import AuditRows
from sipserver.store.database import Database
from sipserver.tenants.audit_log import AuditLog
from sipserver.tenants.audit_secret import AuditSecret
from tests.tenants.test_retention import House

SETTINGS = {"store": {"url": "sqlite:///records.db"}, "retention": {"records_days": 7}}


async def fill(config: Path) -> None:
    """An old call of nobody and one of acme, whose log another secret has sealed."""
    database = Database(load(config).store)
    await database.open()
    old = datetime.now(UTC) - timedelta(days=30)
    house = House(database, config.parent)
    for name, tenant in (("lost", ""), ("a", "acme")):
        await house.call(name, 0, tenant=tenant, ended_at=old)
    other = AuditLog(AuditRows(database), AuditSecret(b"another secret, of thirty-two bytes"))
    await other.append("acme", actor="operator", action="call.created")
    await database.close()


def test_what_fails_is_said_and_keeps_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIPSERVER_AUDIT_SECRET", "a secret of at least thirty-two bytes")
    config = tmp_path / "sipserver.yaml"
    config.write_text(json.dumps(SETTINGS))
    asyncio.run(fill(config))
    done = CliRunner().invoke(app, ["run", "--config", str(config)], catch_exceptions=False)
    assert done.exit_code == 1
    assert "(no tenant): records: 1 before" in done.stdout
    assert "acme: records: the rest could not be deleted" in done.stderr
