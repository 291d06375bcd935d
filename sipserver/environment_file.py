"""The file `environment` beside the settings: secrets for commands that an operator runs, as systemd gives them to the
service (`EnvironmentFile=`, systemd.exec(5)).

Owns that both understand the same: what systemd would read otherwise than it looks is refused. Variables that are set
already stay as they are. Refuses to know what any of them is for.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, MutableMapping
from pathlib import Path

from sipserver.errors import SettingsError

NAME = "environment"
_LINE = re.compile(r"\s*(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?P<value>.*?)\s*")
_QUOTED = re.compile(r"""(?P<quote>["'])(?P<inside>[^"'\\]*)(?P=quote)""")


def beside(settings: Path) -> Path:
    """Where the file of these settings is, if there is one."""
    return settings.parent / NAME


def fill(file: Path, environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what is not set. Nothing where there is no file, or where it is not ours to read: the service's user, whose
    variables systemd has set, need not. Raises SettingsError for a line that is not understood.
    """
    try:
        text = file.read_text()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    except (OSError, UnicodeDecodeError) as problem:
        raise SettingsError(f"it cannot be read: {problem}", file=file) from problem
    for name, value in _variables(file, text):
        environment.setdefault(name, value)


def read_by_others(file: Path) -> bool:
    """Whether more than its owner and group may read it."""
    return file.is_file() and bool(file.stat().st_mode & stat.S_IROTH)


def _variables(file: Path, text: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip()[0] in "#;":
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            raise SettingsError("write NAME=value", file=file, line=number)
        yield found["name"], _value(file, number, found["value"])


def _value(file: Path, number: int, written: str) -> str:
    """Errors do not repeat what may be a secret."""
    if "\0" in written:
        raise SettingsError("a value cannot hold a NUL", file=file, line=number)
    if quoted := _QUOTED.fullmatch(written):
        return quoted["inside"]
    if re.search(r"""["'\\]""", written):
        reason = "backslashes and quotes inside a value mean different things to different programs; do without them"
        raise SettingsError(reason, file=file, line=number)
    return written
