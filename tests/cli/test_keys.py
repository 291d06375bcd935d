"""`sipserver keys` on a database, without a server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sipserver.cli.main import main
from tests.harness.audited import audited


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "sipserver.yaml"
    file.write_text("store: {url: 'sqlite+aiosqlite:///records.db'}\naudit: {secret_file: audit.secret}\n")
    return file


def run(config: Path, *words: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["keys", *words, "--config", str(config)])
    assert stopped.value.code == 0


def test_a_key_is_revoked_once(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(config, "create", "--tenant", "acme", "--name", " ops ")
    key_id = capsys.readouterr().out.split("_")[1]
    run(config, "revoke", key_id)
    assert capsys.readouterr().out == f"revoked {key_id} (ops) of acme\n"
    run(config, "revoke", key_id)
    assert capsys.readouterr().out.startswith(f"{key_id} (ops) of acme was revoked already, 20")
    actions = [entry.action for entry in asyncio.run(audited(config, "acme"))]
    assert actions == ["key.created.asked", "key.created", "key.revoked.asked", "key.revoked"]


def test_the_list_has_whole_ids_beside_long_names(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(config, "create", "--tenant", "acme", "--name", "n" * 100)
    key_id = capsys.readouterr().out.split("_")[1]
    run(config, "list")
    line = capsys.readouterr().out.splitlines()[1]
    assert line.split()[:3] == [key_id, "acme", "n" * 100]
    assert line.endswith("never")
