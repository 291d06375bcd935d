"""What the doctor says of the secret of the audit log: what the server would say at its start, and nothing is made."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sipserver.cli import audit_checks
from sipserver.cli.checks import Finding, Verdict
from sipserver.settings import load
from sipserver.store.audit import AuditRows
from sipserver.store.database import Database
from sipserver.tenants import audit_secret
from sipserver.tenants.audit_log import AuditLog
from tests.harness.audited import make_database

OTHER = "another secret of thirty-two bytes or so"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SIPSERVER_AUDIT_SECRET", raising=False)
    file = tmp_path / "sipserver.yaml"
    file.write_text("store: {url: 'sqlite+aiosqlite:///records.db'}\naudit: {secret_file: audit.secret}\n")
    return file


async def write(config: Path) -> None:
    loaded = load(config)
    await make_database(config)
    database = Database(loaded.store)
    log = AuditLog(AuditRows(database), audit_secret.load(loaded.audit, make=True))
    await log.append("acme", actor="operator", action="key.revoked")
    await database.close()


def look(config: Path) -> list[Finding]:
    return audit_checks.secret(load(config))


def test_nothing_is_said_or_made_where_nothing_was_noted(config: Path) -> None:
    assert look(config) == []
    assert [file.name for file in config.parent.iterdir()] == [config.name]
    asyncio.run(make_database(config))
    assert look(config) == []
    assert not (config.parent / "audit.secret").exists()


def test_the_secret_that_sealed_the_log_is_good(config: Path) -> None:
    asyncio.run(write(config))
    (found,) = look(config)
    assert found.verdict is Verdict.OK
    assert str(config.parent / "audit.secret") in found.what


@pytest.mark.parametrize("where", ["variable", "file"])
def test_another_one_is_found_and_its_place_named(config: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    asyncio.run(write(config))
    file = config.parent / "audit.secret"
    if where == "variable":
        monkeypatch.setenv("SIPSERVER_AUDIT_SECRET", OTHER)
    else:
        file.write_text(OTHER)
    (found,) = look(config)
    assert found.verdict is Verdict.PROBLEM
    assert ("the variable SIPSERVER_AUDIT_SECRET" if where == "variable" else str(file)) in found.what
    assert "put the earlier one back" in found.what


def test_one_that_is_gone_and_one_that_cannot_be_used(config: Path) -> None:
    asyncio.run(write(config))
    file = config.parent / "audit.secret"
    file.unlink()
    (found,) = look(config)
    assert (found.verdict, found.todo) == (Verdict.PROBLEM, "put the earlier one back")
    assert "there are logs, and there is no secret" in found.what
    assert not file.exists()
    file.write_text(OTHER)
    file.chmod(0o604)
    (found,) = look(config)
    assert "chmod 600" in found.what


def test_a_log_that_cannot_be_read_is_a_warning(config: Path) -> None:
    asyncio.run(write(config))
    asyncio.run(_damage(config))
    (found,) = look(config)
    assert found.verdict is Verdict.WARNING


async def _damage(config: Path) -> None:
    database = Database(load(config).store)
    async with database.engine.begin() as connection:
        await connection.exec_driver_sql("DROP TABLE audit_heads")
    await database.close()
