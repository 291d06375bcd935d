"""Which files of sound belong to a call, and how whoever gives them away reads one.

Owns their names, as `calls` makes them: plain or encrypted. Refuses to know keys: they are in what `Opens` is.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

SEALED = ".enc"

Opens = Callable[[Path, str], BinaryIO]
"""(path, tenant): a file as WAV, wherever its key is there. Blocks. Raises OSError, SipServerError; reading, too."""


def plain(path: Path, _tenant: str) -> BinaryIO:
    """`Opens` without keys: the file as it is."""
    return path.open("rb")


def of_call(path: Path, call_id: str) -> list[Path]:
    """All recordings of the call whose first one this is. Blocks."""
    names = (f"{glob.escape(call_id)}*.wav", f"{glob.escape(call_id)}*.wav{SEALED}")
    return sorted(found for name in names for found in path.parent.glob(name))


def numbered(last: Path, call_id: str, number: int) -> Path | None:
    """Where the recording of this number is, of a call whose last one this is; None: there were not so many."""
    name = wav_name(last)
    found = re.fullmatch(rf"{re.escape(call_id)}(?:-(\d+))?\.wav", name)
    if found is None or not 1 <= number <= int(found[1] or 1):
        return None
    which = f"-{number}" if number > 1 else ""
    return last.with_name(f"{call_id}{which}.wav{last.name.removeprefix(name)}")


def wav_name(path: Path) -> str:
    """Under which a file is given away."""
    return path.name.removesuffix(SEALED)
