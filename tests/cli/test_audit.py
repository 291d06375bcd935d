"""`sipserver audit`, on a log that was really written, and on one that was tampered with."""

from __future__ import annotations

import asyncio
import csv
import json
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sipserver.cli.audit import app
from sipserver.cli.main import main
from sipserver.errors import SettingsError, SipServerError
from sipserver.settings import load
from sipserver.store.audit import AuditRows
from sipserver.store.database import Database
from sipserver.tenants import audit_secret
from sipserver.tenants.audit_log import AuditLog

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
NASTY = "user:\x1b[31mred\nacme: 9 entries"


async def write(config: Path) -> None:
    """Four entries of acme, a minute apart, and one of zenith."""
    settings = load(config)
    moments = iter([NOW + timedelta(minutes=minute) for minute in range(5)])
    database = Database(settings.store)
    await database.open()
    secret = audit_secret.load(settings.audit, make=True, environment={})
    log = AuditLog(AuditRows(database), secret, clock=lambda: next(moments))
    for number in range(1, 5):
        await log.append("acme", actor=NASTY, action="call.created", subject=f"call:{number}", detail={"n": number})
    await log.append("zenith", actor="operator", action="key.revoked")
    await database.close()


@dataclass
class Place:
    """config: its settings file."""

    config: Path

    def run(self, *words: str, **environment: str) -> Result:
        variables = {"COLUMNS": "200", "SIPSERVER_AUDIT_SECRET": "", **environment}
        return CliRunner().invoke(app, [*words, "--config", str(self.config)], env=variables, catch_exceptions=False)

    def change(self, statement: str) -> None:
        database = sqlite3.connect(self.config.parent / "records.db")
        with database:
            database.execute(statement)
        database.close()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    config = tmp_path / "sipserver.yaml"
    config.write_text(
        "store: {url: 'sqlite+aiosqlite:///records.db'}\naudit: {secret_file: audit.secret}\n", encoding="utf-8"
    )
    asyncio.run(write(config))
    return Place(config)


def test_whole_logs(place: Place) -> None:
    done = place.run("verify")
    assert done.exit_code == 0
    first, second = done.stdout.splitlines()
    assert first.startswith("acme: 4 entries, as they were written; the last is 4:")
    assert second.startswith("zenith: 1 entries")
    assert place.run("verify", "--tenant", "zenith").stdout.splitlines() == [second]
    assert place.run("verify", "--tenant", "nobody").stdout == "nobody: no entries\n"


def test_a_broken_log_is_told_with_its_place(place: Place) -> None:
    place.change("UPDATE audit SET subject = 'call:9' WHERE tenant = 'acme' AND number = 2")
    done = place.run("verify")
    assert done.exit_code == 2
    first, second = done.stdout.splitlines()
    assert first == "acme: BROKEN at entry 2: it was changed after it was written (changed)"
    assert second.startswith("zenith: 1 entries")
    assert place.run("verify", "--tenant", "zenith").exit_code == 0


def test_what_is_known_of_a_log(place: Place) -> None:
    known = place.run("verify", "--tenant", "acme").stdout.split()[-1]
    assert place.run("verify", "--tenant", "acme", "--known", known).exit_code == 0
    other = "4:" + "0" * 64
    done = place.run("verify", "--tenant", "acme", "--known", other)
    assert (done.exit_code, "BROKEN at entry 4" in done.stdout) == (2, True)
    for wrong in (("--known", known), ("--tenant", "acme", "--known", "4:x")):
        refused = place.run("verify", *wrong)
        assert refused.exit_code == 2
        assert "--known" in refused.output


def test_another_secret_and_none(place: Place) -> None:
    done = place.run("verify", SIPSERVER_AUDIT_SECRET="another secret of thirty-two bytes")
    assert done.exit_code == 2
    assert "(foreign)" in done.stdout
    secret = place.config.parent / "audit.secret"
    secret.unlink()
    with pytest.raises(SettingsError, match="there is no secret"):
        place.run("verify")
    assert not secret.exists()


def test_list_shows_the_newest_first_and_steers_no_terminal(place: Place) -> None:
    done = place.run("list", "--tenant", "acme", "-n", "3")
    assert done.exit_code == 0
    heading, *lines = done.stdout.splitlines()
    assert heading.split()[0] == "number"
    assert [line.split()[0] for line in lines] == ["4", "3", "2"]
    assert "user:·[31mred·acme: 9 entries" in lines[0]
    assert "n=4" in lines[0]
    since = place.run("list", "--tenant", "acme", "--since", "2026-11-28T12:02").stdout.splitlines()
    assert [line.split()[0] for line in since[1:]] == ["4", "3"]


def test_list_as_json(place: Place) -> None:
    found = json.loads(place.run("list", "--tenant", "acme", "--json").stdout)
    assert [each["number"] for each in found] == [4, 3, 2, 1]
    assert (found[0]["actor"], found[0]["detail"]) == (NASTY, {"n": 4})


def test_export_says_from_which_number_it_begins(place: Place) -> None:
    done = place.run("export", "--tenant", "acme", "--format", "jsonl", "--since", "2026-11-28T12:01")
    assert [json.loads(line)["number"] for line in done.stdout.splitlines()] == [2, 3, 4]
    assert done.stderr == "acme: entries 2 to 4, 3 of them\n"
    until = ("--since", "2026-11-28T13:01+01:00", "--until", "2026-11-28T12:02Z")
    done = place.run("export", "--tenant", "acme", "--format", "csv", *until)
    assert [row["number"] for row in csv.DictReader(done.stdout.splitlines())] == ["2"]
    assert done.stderr == "acme: entries 2 to 2, 1 of them\n"
    assert place.run("export", "--tenant", "nobody", "--format", "jsonl").stderr == "nobody: no entries\n"


def test_moments_that_are_none(place: Place) -> None:
    refused = place.run("export", "--tenant", "acme", "--format", "csv", "--until", "noon")
    assert (refused.exit_code, "--until" in refused.output) == (2, True)


def test_what_cannot_be_read_is_said(place: Place) -> None:
    place.change("UPDATE audit SET detail = '[' WHERE tenant = 'acme' AND number = 2")
    for words in (("list",), ("export", "--format", "csv")):
        with pytest.raises(SipServerError, match=r"entry 2 .* cannot be read"):
            place.run(*words, "--tenant", "acme")


def test_it_is_a_command(place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIPSERVER_AUDIT_SECRET", raising=False)
    place.change("DELETE FROM audit_heads WHERE tenant = 'zenith'")
    with pytest.raises(SystemExit) as left:
        main(["audit", "verify", "--config", str(place.config)])
    assert left.value.code == 2
    assert "zenith: BROKEN at entry 1" in capsys.readouterr().out
