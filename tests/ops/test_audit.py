"""The audit: advisories fail, allowed ones do not, and a machine without internet passes and is told why."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tools import audit

CLEAN = {"name": "aiohttp", "version": "3.14.5", "vulns": []}
KNOWN = {
    "name": "av",
    "version": "1.0",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-2026-1"], "fix_versions": ["1.1"]}],
}
UNKNOWN = {"name": "numpy", "skip_reason": "Dependency not found on PyPI and could not be audited: numpy (2.4.6)"}


class Done(NamedTuple):
    stdout: str


def answered(monkeypatch: pytest.MonkeyPatch, *packages: dict[str, Any]) -> None:
    printed = json.dumps({"dependencies": packages, "fixes": []})
    monkeypatch.setattr(subprocess, "run", lambda *_arguments, **_options: Done(printed))


@pytest.fixture(autouse=True)
def allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "audit-allow.txt"
    monkeypatch.setattr(audit, "ALLOW", file)
    return file


def test_no_advisory(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answered(monkeypatch, CLEAN, UNKNOWN)
    assert audit.main() == 0
    assert "2 packages asked about, 0 with advisories" in capsys.readouterr().out


def test_an_advisory_fails_and_names_the_fix(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answered(monkeypatch, CLEAN, KNOWN)
    assert audit.main() == 1
    assert "av 1.0: PYSEC-1, fixed in 1.1" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["PYSEC-1", "CVE-2026-1"])
def test_an_allowed_advisory_passes(monkeypatch: pytest.MonkeyPatch, allowed: Path, name: str) -> None:
    allowed.write_text(f"# reasons stand behind the name\n{name}  # only with untrusted video\n")
    answered(monkeypatch, KNOWN)
    assert audit.main() == 0


def test_unreachable_passes_and_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_arguments, **_options: Done("no network"))
    assert audit.main() == 0
    assert "not reachable" in capsys.readouterr().out
    answered(monkeypatch, UNKNOWN)
    assert audit.main() == 0
    assert "not reachable" in capsys.readouterr().out


def test_too_slow_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_arguments: object, **_options: object) -> Done:
        raise subprocess.TimeoutExpired("pip_audit", audit.LIMIT_S)

    monkeypatch.setattr(subprocess, "run", slow)
    assert audit.main() == 0
