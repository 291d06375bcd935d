"""What an operator does beside REST: noted before and after, refused when it cannot be noted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sipserver.cli import operator_audit
from sipserver.cli.main import main
from sipserver.errors import NotFound, SettingsError, SipServerError
from sipserver.settings import load
from sipserver.store.audit import open_audit
from sipserver.store.database import Database
from tests.harness.audited import audited, make_database


@pytest.fixture
async def config(tmp_path: Path) -> Path:
    file = tmp_path / "sipserver.yaml"
    file.write_text("store: {url: 'sqlite+aiosqlite:///records.db'}\naudit: {secret_file: audit.secret}\n")
    await make_database(file)
    return file


async def calls() -> str:
    return "c-1"


async def test_a_deed_is_asked_and_done(config: Path) -> None:
    async with operator_audit.opened(load(config)) as audit:
        assert await audit.do("acme", "call.created", calls, detail={"flow": "main"}) == "c-1"
    asked, done = await audited(config, "acme")
    assert (asked.actor, asked.action, asked.subject, asked.detail) == (
        "operator",
        "call.created.asked",
        "call",
        {"flow": "main"},
    )
    assert (done.action, done.subject) == ("call.created", "call:c-1")
    assert done.detail == {"asked": asked.number, "flow": "main"}


@pytest.mark.parametrize(("problem", "status"), [(NotFound("no such call"), 404), (RuntimeError("broken"), 500)])
async def test_a_deed_that_fails_says_so(config: Path, problem: Exception, status: int) -> None:
    async def fails() -> str:
        raise problem

    async with operator_audit.opened(load(config)) as audit:
        with pytest.raises(type(problem)):
            await audit.do("acme", "call.ended", fails, which="c-1")
    asked, failed = await audited(config, "acme")
    assert (failed.action, failed.detail) == ("call.ended.failed", {"asked": asked.number, "status": status})


async def test_what_belongs_to_no_tenant_has_a_log_too(config: Path) -> None:
    async with operator_audit.opened(load(config)) as audit:
        await audit.read("", "events.read", "call:c-1")
    (read,) = await audited(config, "-")
    assert (read.action, read.subject) == ("events.read", "call:c-1")


async def test_what_cannot_be_noted_is_not_done(config: Path) -> None:
    done = []

    async def work() -> str:
        done.append(1)
        return "c-1"

    database = Database(load(config).store)
    await database.open()
    async with database.engine.begin() as connection:
        await connection.exec_driver_sql("DROP TABLE audit_heads")
    await database.close()
    async with operator_audit.opened(load(config)) as audit:
        with pytest.raises(SipServerError, match="nothing was done or read"):
            await audit.do("acme", "call.ended", work, which="c-1")
    assert not done


async def test_a_secret_is_made_only_where_nothing_was_noted(config: Path) -> None:
    loaded = load(config)
    async with operator_audit.opened(loaded) as audit:
        await audit.read("acme", "events.read", "call:c-1")
    assert loaded.audit.secret_file.exists()
    loaded.audit.secret_file.unlink()
    async with operator_audit.opened(loaded) as audit:
        with pytest.raises(SettingsError, match="there is no secret"):
            await audit.read("zenith", "events.read", "call:c-2")
    assert not loaded.audit.secret_file.exists()


async def test_there_must_be_a_database(tmp_path: Path) -> None:
    file = tmp_path / "sipserver.yaml"
    file.write_text("store: {url: 'sqlite+aiosqlite:///none.db'}\n")
    with pytest.raises(SettingsError, match="no call records yet"):
        async with operator_audit.opened(load(file)):
            pass
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize("tenant", ["", "-", "Acme", "a/../b", "a b", "acme\n", "x" * 64])
@pytest.mark.parametrize(
    "command",
    [["keys", "create", "--name", "x"], ["users", "create", "a@b.example", "--role", "owner", "--without-password"]],
)
async def test_neither_a_key_nor_a_user_is_made_for_a_tenant_that_cannot_be(
    config: Path, capsys: pytest.CaptureFixture[str], tenant: str, command: list[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        await asyncio.to_thread(main, [*command, "--tenant", tenant, "--config", str(config)])
    assert stopped.value.code == 1
    assert "a tenant's name has small letters" in capsys.readouterr().err
    async with open_audit(load(config).store) as rows:
        assert await rows.tenants() == []


async def test_a_key_that_is_made_is_noted_before_and_after(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["keys", "create", "--name", "ops", "--tenant", "acme", "--scope", "calls:read", "--config", str(config)]
    with pytest.raises(SystemExit):
        await asyncio.to_thread(main, words)
    text = capsys.readouterr().out.strip()
    asked, made = await audited(config, "acme")
    assert (asked.action, asked.subject, asked.detail) == (
        "key.created.asked",
        "key",
        {"name": "ops", "scopes": ["calls:read"]},
    )
    assert (made.action, made.subject) == ("key.created", f"key:{text.split('_')[1]}")
