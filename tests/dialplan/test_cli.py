"""`sipserver dialplan` as an operator types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sipserver.cli.dialplan import app
from sipserver.errors import DialplanError
from tests.fakes.dialplans import written

ROOT = Path(__file__).parents[2]


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which no settings file lies."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_shipped_dialplans_have_no_mistakes_and_no_warnings() -> None:
    result = run("check", "--config", ROOT / "etc/sipserver.yaml")
    assert result.exit_code == 0
    assert result.stdout == "no mistakes; tenants: demo\n"


def test_all_mistakes_of_a_folder_are_printed(folder: Path) -> None:
    (folder / "a.yaml").write_text(written("main:\n  - sy: a\n  - sai: b"))
    (folder / "b.yaml").write_text(written("main:\n  - hangup\n  - answer", tenant="beta"))
    result = run("check", folder)
    assert result.exit_code == 1
    assert [line.split(": unknown")[0] for line in result.stderr.splitlines()] == [
        f"{folder}/a.yaml:4: flows.main[0].sy",
        f"{folder}/a.yaml:5: flows.main[1].sai",
    ]
    assert result.stdout == f"warning: {folder}/b.yaml:5: flows.main[1]: this step is never reached\n"


def test_one_file_is_checked(folder: Path) -> None:
    (folder / "a.yaml").write_text(written("main: [answer]"))
    (folder / "b.yaml").write_text("nonsense")
    assert run("check", folder / "a.yaml").exit_code == 0
    assert run("check", folder / "b.yaml").exit_code == 1


def test_engines_are_compared_with_the_settings(folder: Path) -> None:
    (folder / "a.yaml").write_text(written("main: [{say: {text: a, tts: own}}]"))
    (folder / "settings.yaml").write_text("speech: {tts: {own: {vendor: espeak}}}\ndialplans: .")
    assert "the settings have no engine `own` under `speech.tts`" in run("check", folder / "a.yaml").stderr
    assert run("check", folder / "a.yaml", "--config", folder / "settings.yaml").exit_code == 0


def test_a_folder_without_dialplans_is_an_error(folder: Path) -> None:
    result = run("check", folder)
    assert isinstance(result.exception, DialplanError)
    assert str(result.exception) == f"{folder}: no dialplan (*.yaml) is in this folder"


def test_a_call_is_explained(folder: Path) -> None:
    match = "{to: 1*, from: ada, headers: {X-Vip: 'y*'}, hours: weekends}"
    (folder / "a.yaml").write_text(
        written("main: [answer]", routes=f"- {{match: {match}, flow: main}}", head="timezone: UTC")
    )
    words: list[str | Path] = [
        "explain",
        "--to",
        "sip:100@here",
        "--from",
        "ada",
        "--header",
        "X-Vip=yes",
        "--path",
        folder,
    ]
    saturday = run(*words, "--at", "2026-11-28T12:00:00Z")
    assert saturday.exit_code == 0
    assert "takes the call" in saturday.stdout
    assert "flow main" in saturday.stdout
    monday = run(*words, "--at", "2026-11-23T12:00:00Z")
    assert monday.exit_code == 1
    assert "no: hours weekends does not match mon 12:00 UTC" in monday.stdout


def test_trunk_load_and_direction_can_be_said(folder: Path) -> None:
    match = "{trunk: carrier, direction: outbound, load: < 80}"
    routes = f"- {{match: {match}, flow: main}}"
    (folder / "a.yaml").write_text(written("main: [answer]", routes=routes, head="targets: ['1']"))
    words = ["explain", "--to", "1", "--path", str(folder), "--trunk", "carrier"]
    assert run(*words, "--outbound", "--load", "79").exit_code == 0
    full = run(*words, "--outbound", "--load", "80")
    assert full.exit_code == 1
    assert "no: load < 80 does not match 80 %" in full.stdout
    assert "no: direction outbound does not match inbound" in run(*words).stdout


def test_a_call_that_the_targets_do_not_allow_is_not_placed(folder: Path) -> None:
    (folder / "a.yaml").write_text(written("main: [answer]", head="targets: ['+49*']"))
    assert run("explain", "--to", "+4930", "--path", folder, "--outbound").exit_code == 0
    assert run("explain", "--to", "sip:+4930@192.0.2.66", "--path", folder).exit_code == 0
    refused = run("explain", "--to", "sip:+4930@192.0.2.66", "--path", folder, "--outbound")
    assert refused.exit_code == 1
    assert "`targets` of the tenant acme does not allow it" in refused.stdout


def test_files_with_mistakes_are_left_out_and_named(folder: Path) -> None:
    (folder / "a.yaml").write_text(written("main: [answer]"))
    (folder / "b.yaml").write_text(written("main: [answr]", tenant="beta"))
    result = run("explain", "--to", "1", "--path", folder)
    assert result.exit_code == 0
    assert result.stderr.startswith(f"left out: {folder}/b.yaml:3: ")


@pytest.mark.parametrize("words", [["--at", "noon"], ["--header", "X-Vip"]])
def test_options_that_cannot_be_read_are_refused(words: list[str], folder: Path) -> None:
    (folder / "a.yaml").write_text(written("main: [answer]"))
    result = run("explain", "--to", "1", "--path", folder, *words)
    assert result.exit_code == 2
    assert words[1] in result.stderr


def test_the_schema_is_json() -> None:
    assert json.loads(run("schema").stdout)["title"] == "sipserver dialplan"
