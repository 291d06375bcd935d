"""`sipserver users` on a database, without a server. What it shares with REST is in tests/api/rest/test_users.py."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sipserver.cli.users import app
from sipserver.settings import load
from sipserver.store.database import Database
from sipserver.store.users import UserRows
from sipserver.tenants.passwords import Passwords
from sipserver.tenants.user_book import FREE_TRIES, UserBook

EMAIL = "anna@example.com"
PASSWORD = "correct horse battery\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "sipserver.yaml"
    file.write_text("store: {url: 'sqlite+aiosqlite:///records.db'}\naudit: {secret_file: audit.secret}\n")
    return file


def run(config: Path, *words: str, line: str = "") -> str:
    done = CliRunner().invoke(app, [*words, "--config", str(config)], input=line, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


async def guess(config: Path, at: datetime) -> None:
    """Until the account is locked."""
    database = Database(load(config).store)
    await database.open()
    book = UserBook(UserRows(database), Passwords(), clock=lambda: at)
    for _ in range(FREE_TRIES + 1):
        await book.let_in("acme", EMAIL, "wrong")
    await database.close()


def test_a_lock_is_shown_while_it_lasts(config: Path) -> None:
    run(config, "create", EMAIL, "--tenant", "acme", "--role", "owner", line=PASSWORD)
    asyncio.run(guess(config, datetime.now(UTC)))
    (user,) = json.loads(run(config, "list", "--json"))
    until = datetime.fromisoformat(user["locked_until"])
    assert f"comes by password, locked until {until:%H:%M:%S} UTC" in run(config, "list")
    assert "locked" not in run(config, "reset-password", EMAIL, "--tenant", "acme", line=PASSWORD)
    assert "locked" not in run(config, "list")


def test_a_lock_that_is_over_is_none(config: Path) -> None:
    run(config, "create", EMAIL, "--tenant", "acme", "--role", "owner", line=PASSWORD)
    asyncio.run(guess(config, datetime(2026, 1, 1, tzinfo=UTC)))
    assert "locked" not in run(config, "list")
