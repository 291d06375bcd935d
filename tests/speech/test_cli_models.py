"""`sipserver models` says what is there, what is missing and who wants it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sipserver.cli import models as command
from sipserver.settings import Settings
from sipserver.speech import catalogue
from tests.fakes.models import JOINED, ONE, WHOLE, SitePackages


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "etc" / "sipserver.yaml"
    file.parent.mkdir()
    file.write_text(
        "speech:\n  models: ../models\n  stt: {ear: {vendor: whisper, model: joined}}\n"
        "  tts: {mouth: {vendor: piper, voices: [whole, /no/such.onnx]}}\n"
    )
    return file


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SitePackages:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    site = SitePackages(folder, monkeypatch)
    monkeypatch.setattr(command, "CATALOGUE", {"whole": WHOLE, "joined": JOINED})
    monkeypatch.setenv("COLUMNS", "200")
    return site


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(command.app, list(arguments))
    return result.exit_code, result.output


def row(output: str, name: str) -> str:
    return next(line for line in output.splitlines() if name in line)


def test_list_shows_state_and_users(config: Path, site: SitePackages) -> None:
    site.lay_down(ONE)
    code, output = run("list", "--config", str(config))
    assert code == 0
    assert "installed" in row(output, "whole")
    assert "speech.tts.mouth" in row(output, "whole")
    assert "missing" in row(output, "joined")
    assert "speech.stt.ear" in row(output, "joined")
    assert "missing" in row(output, "/no/such.onnx")


def test_install_then_verify(config: Path, site: SitePackages) -> None:
    code, output = run("install", "joined", "--config", str(config))
    assert code == 0
    assert "checksums right" in output
    assert run("verify", "joined", "--config", str(config)) == (0, "joined: right\n")
    folder = config.parent.parent / "models"
    (folder / "joined" / "model.bin").write_bytes(b"HEADTAIL")
    code, output = run("verify", "--config", str(config))
    assert code == 1
    assert "joined: model.bin: checksum differs" in output


def test_verify_of_what_is_missing_or_unknown_fails(config: Path, site: SitePackages) -> None:
    code, output = run("verify", "joined", "other", "--config", str(config))
    assert code == 1
    assert "sipserver models install joined" in output
    assert "other: not in the catalogue" in output


def test_install_of_nonsense_fails_with_a_reason(config: Path, site: SitePackages) -> None:
    code, output = run("install", "nonsense", "--config", str(config))
    assert code == 1
    assert "nonsense" in output


def test_a_bad_settings_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("speech: {modles: x}\n")
    code, output = run("list", "--config", str(file))
    assert code == 2
    assert "bad.yaml:1" in output


def test_defaults_hold_where_no_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert command._settings(None).speech.models == tmp_path / "var" / "models"


def test_uses_name_every_local_engine() -> None:
    used = command.uses(Settings())
    assert used["tiny.en"] == ["speech.stt.whisper"]
    assert used["en_US-joe-medium"] == ["speech.tts.piper"]
    assert used["smollm2-135m"] == ["llm.local"]
    assert catalogue.CATALOGUE.keys() >= used.keys()
