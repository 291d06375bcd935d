"""The files of a dialplan folder by tenant: found, read, written whole or not at all; and which version each was.

Beside the dialplans it keeps hidden files `.TENANT.version`: the version that this machine had last. Refuses to know
where versions come from. Everything blocks on the disk.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from sipserver import yaml_file
from sipserver.dialplan import book
from sipserver.errors import ConfigError, DialplanError, DiskFull, SipServerError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Found:
    """A file as it is now. text: None for one that cannot be read, or is no UTF-8 text. age_s: since it was changed."""

    file: Path
    text: str | None
    age_s: float = 0.0

    @property
    def digest(self) -> str:
        return "" if self.text is None else digest_of(self.text)


@dataclass(frozen=True, slots=True)
class Mark:
    """The version that a tenant's file had last on this machine. digest: empty when that was none."""

    number: int
    digest: str


class Shelf:
    """Not for several threads at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tenants: dict[Path, tuple[tuple[int, int, int], str]] = {}

    def find(self, tenant: str, name: str = "") -> Found | None:
        """The file that has the tenant's plan; else the one of this name, if it can no longer be told whose it is.

        Raises Unwritable when the folder cannot be read.
        """
        owners = self._owners()
        file = next((file for file, owner in owners.items() if owner == tenant), None)
        if file is None and name and owners.get(named := self.file(name)) == "":
            file = named
        if file is None:
            return None
        text = _read(file)
        try:
            return Found(file, text, abs(time.time() - file.stat().st_mtime))
        except OSError:
            return None

    def count(self) -> tuple[int, int]:
        """Files that are somebody's dialplan, and those of which it cannot be told whose they are."""
        owners = self._owners().values()
        known = sum(1 for owner in owners if owner)
        return known, len(owners) - known

    def file(self, name: str) -> Path:
        """Where a new plan goes. name: a tenant's, thus no path."""
        return self.folder / f"{name}.yaml"

    def is_free(self, file: Path) -> bool:
        return not file.exists() and not file.is_symlink()

    def prepare(self, file: Path, text: str) -> Path:
        """The text on the disk, beside where it belongs; `commit` puts it there. Raises DiskFull, or SipServerError."""
        place = ""
        try:
            handle, place = tempfile.mkstemp(prefix=".", suffix=".new", dir=self.folder)
            with os.fdopen(handle, "wb") as stream:
                stream.write(text.encode())
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(place, file.stat().st_mode & 0o777 if file.exists() else 0o640)
        except OSError as problem:
            with contextlib.suppress(OSError):
                os.unlink(place)
            raise _refusal(problem) from problem
        return Path(place)

    def commit(self, prepared: Path, file: Path) -> None:
        """At once: whoever reads sees the old text or the new one. A link is replaced; what it leads to stays."""
        try:
            os.replace(prepared, file)
            self._sync()
        except OSError as problem:
            raise _refusal(problem) from problem

    def discard(self, prepared: Path) -> None:
        with contextlib.suppress(OSError):
            prepared.unlink()

    def remove(self, file: Path) -> None:
        """Idempotent."""
        try:
            file.unlink(missing_ok=True)
            self._sync()
        except OSError as problem:
            raise _refusal(problem) from problem

    def mark(self, tenant: str) -> Mark | None:
        try:
            number, _, digest = (self.folder / f".{tenant}.version").read_text("ascii").strip().partition(" ")
            return Mark(int(number), digest)
        except (OSError, ValueError):
            return None

    def set_mark(self, tenant: str, mark: Mark) -> None:
        """Raises DiskFull, or SipServerError."""
        file = self.folder / f".{tenant}.version"
        self.commit(self.prepare(file, f"{mark.number} {mark.digest}\n"), file)

    def _owners(self) -> dict[Path, str]:
        """Whose plan each file has, empty where that cannot be told; only files that have changed are read again."""
        known: dict[Path, tuple[tuple[int, int, int], str]] = {}
        try:
            files = book.files(self.folder)
        except DialplanError as problem:
            raise Unwritable("the server cannot read its dialplans: tell the operator") from problem
        for file in files:
            try:
                status = file.stat()
            except OSError:
                continue
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            had = self._tenants.get(file)
            known[file] = had if had is not None and had[0] == stamp else (stamp, tenant_of(_read(file), file))
        self._tenants = known
        return {file: owner for file, (_, owner) in known.items()}

    def _sync(self) -> None:
        """A name that was changed survives a power cut."""
        handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def tenant_of(text: str | None, file: Path) -> str:
    """Whose plan a text is; empty if that cannot be told."""
    try:
        document = yaml_file.parse_text(text or "", file, DialplanError)
    except ConfigError:
        return ""
    value = document.value.get("tenant") if isinstance(document.value, dict) else None
    return value if isinstance(value, str) else ""


def _read(file: Path) -> str | None:
    """The text, if it is one that a dialplan may have."""
    try:
        with file.open("rb") as stream:
            raw = stream.read(yaml_file.MAX_BYTES + 1)
        return None if len(raw) > yaml_file.MAX_BYTES or b"\0" in raw else raw.decode()
    except (OSError, UnicodeDecodeError):
        return None


def _refusal(problem: OSError) -> SipServerError:
    if problem.errno in _FULL:
        return DiskFull("the server's disk is full: the dialplan stays as it was; tell the operator")
    return Unwritable("the server cannot write its dialplans: they stay as they were; tell the operator")


class Unwritable(SipServerError):
    """A folder that is not ours, or a disk that fails. What the disk said is for the log."""

    retry = True
    http_code = 503
