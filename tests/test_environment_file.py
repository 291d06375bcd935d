"""The file `environment` beside the settings: what it sets, what it leaves, and what it refuses."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from sipserver import environment_file
from sipserver.errors import SettingsError
from sipserver.settings import load

TEXT = """\
# a comment
; another one

PLAIN=abc#def $HOME 100%
  SPACED =  around and inside \t
SINGLE='two words'
DOUBLE="# not a comment"
EMPTY=
BASE64=9fV+/x==
"""
READ = {
    "PLAIN": "abc#def $HOME 100%",
    "SPACED": "around and inside",
    "SINGLE": "two words",
    "DOUBLE": "# not a comment",
    "EMPTY": "",
    "BASE64": "9fV+/x==",
}


def read(file: Path, **already: str) -> dict[str, str]:
    environment = dict(already)
    environment_file.fill(file, environment)
    return environment


def test_what_it_sets(tmp_path: Path) -> None:
    file = tmp_path / "environment"
    file.write_text(TEXT)
    assert read(file) == READ


def test_what_is_set_stays_also_when_it_is_empty(tmp_path: Path) -> None:
    file = tmp_path / "environment"
    file.write_text("A=file\nB=file\nC=file\n")
    assert read(file, A="shell", B="") == {"A": "shell", "B": "", "C": "file"}


def test_files_of_windows_have_no_carriage_returns_in_their_values(tmp_path: Path) -> None:
    file = tmp_path / "environment"
    file.write_bytes(b"A=one\r\nB='two'\r\n")
    assert read(file) == {"A": "one", "B": "two"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("export A=1", "write NAME=value"),
        ("SIPSERVER_AUDIT_SECRET", "write NAME=value"),
        ("1A=x", "write NAME=value"),
        (r"A=back\slash", "backslashes"),
        ("A=go on \\", "backslashes"),
        (r'A="es\"caped"', "backslashes"),
        ("A='one' 'two'", "quotes"),
        ('A="open', "quotes"),
        ("A=nul\0", "NUL"),
    ],
)
def test_what_others_would_read_otherwise_is_refused_without_repeating_it(
    tmp_path: Path, line: str, reason: str
) -> None:
    file = tmp_path / "environment"
    file.write_text(f"GOOD=1\n{line}\n")
    with pytest.raises(SettingsError, match=f"{re.escape(str(file))}.*2.*{reason}") as refusal:
        read(file)
    assert line not in str(refusal.value)


def test_no_file_and_what_is_no_file(tmp_path: Path) -> None:
    assert read(tmp_path / "environment") == {}
    (tmp_path / "environment").mkdir()
    with pytest.raises(SettingsError, match="cannot be read"):
        read(tmp_path / "environment")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_a_file_that_is_not_ours_to_read_is_the_services_own_affair(tmp_path: Path) -> None:
    file = tmp_path / "environment"
    file.write_text("A=1\n")
    file.chmod(0o600)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    pid = os.fork()
    if pid == 0:
        try:
            os.setuid(65534)
            os._exit(0 if read(file) == {} else 1)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_it_is_as_a_shell_reads_it_where_both_agree(tmp_path: Path) -> None:
    """A check of our reading by another program: dash, on the lines that mean the same there."""
    file = tmp_path / "environment"
    file.write_text("SINGLE='two words'\nDOUBLE=\"# not a comment\"\nEMPTY=\nBASE64=9fV+/x==\n")
    script = '. "$1"; printf "%s\\n" "$SINGLE" "$DOUBLE" "$EMPTY" "$BASE64"'
    said = subprocess.run(["sh", "-c", script, "sh", str(file)], capture_output=True, text=True, check=True).stdout
    assert said.split("\n")[:-1] == list(read(file).values())


def test_settings_know_what_stands_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIPSERVER_AUDIT_SECRET", "x")
    monkeypatch.delenv("SIPSERVER_AUDIT_SECRET")
    (tmp_path / "environment").write_text("SIPSERVER_AUDIT_SECRET=short\n")
    file = tmp_path / "sipserver.yaml"
    file.write_text("mode: single\n")
    with pytest.raises(SettingsError, match="the secret in SIPSERVER_AUDIT_SECRET has 5 bytes"):
        load(file)
