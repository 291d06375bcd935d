"""The command tree, what it imports, and how errors look."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest

from sipserver import __version__
from sipserver.cli import main as cli
from sipserver.errors import InternalError, SettingsError
from sipserver.log import logger


def exit_code(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    return stopped.value.code if isinstance(stopped.value.code, int) else 0


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--version") == 0
    assert capsys.readouterr().out == f"sipserver {__version__}\n"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--help") == 0
    printed = capsys.readouterr().out
    for command in ("run", *cli.COMMANDS, *cli.GROUPS):
        assert f" {command} " in printed


def test_help_imports_no_engine_and_no_database() -> None:
    heavy = ("numpy", "pjsua2", "sqlalchemy", "openai", "ctranslate2", "aiohttp", "pydantic")
    code = (
        "import sys\nfrom sipserver.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stderr.strip() == "[]"


def test_unknown_command() -> None:
    assert exit_code("bogus") == 2


def server(monkeypatch: pytest.MonkeyPatch, outcome: int | Exception) -> list[Path]:
    """Put a stand-in for the composition root where `run` imports it from; returns the files it was given."""
    given: list[Path] = []

    def run(settings_file: Path) -> int:
        given.append(settings_file)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    module = types.ModuleType("sipserver.app")
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sipserver.app", module)
    return given


def test_run_hands_over_the_settings_file(monkeypatch: pytest.MonkeyPatch) -> None:
    given = server(monkeypatch, 0)
    assert exit_code("run", "--config", "some/file.yaml") == 0
    assert exit_code("run") == 0
    assert given == [Path("some/file.yaml"), Path("etc/sipserver.yaml")]


def test_run_hands_back_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    server(monkeypatch, 3)
    assert exit_code("run") == 3


def test_a_wrong_file_is_one_line_and_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server(monkeypatch, SettingsError("unknown key", file="etc/sipserver.yaml", line=7, key="sip.prot"))
    assert exit_code("run") == 2
    assert capsys.readouterr().err == "error: etc/sipserver.yaml:7: sip.prot: unknown key\n"


def test_a_failure_is_one_line_and_code_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    server(monkeypatch, InternalError("the cell did not start"))
    assert exit_code("run") == 1
    assert capsys.readouterr().err == "error: the cell did not start\n"


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    server(monkeypatch, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(["run"])


def test_a_command_logs_warnings_in_a_form_for_people_and_hides_what_is_private(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def doctor() -> None:
        logger("store").info("not told")
        logger("store").warning("told", token="a whole key")

    module = types.ModuleType("sipserver.cli.doctor")
    module.doctor = doctor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sipserver.cli.doctor", module)
    assert exit_code("doctor") == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "told" in said.err
    assert "not told" not in said.err
    assert "a whole key" not in said.err


def test_python_m_is_the_same_command() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "sipserver", "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout == f"sipserver {__version__}\n"
