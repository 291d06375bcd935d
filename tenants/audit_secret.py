"""The secret that seals the audit log: from the environment, or from a file that is made when it is needed first.

Owns where it comes from and the secrets of tenants, which are derived from it (HKDF-SHA256, RFC 5869), so that what
verifies one tenant's chain cannot seal another's. Refuses to replace a secret: all that was sealed would seem broken.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sipserver.errors import SettingsError
from sipserver.tenants.settings import AuditSettings

LEAST = 32
"""Bytes."""
_PURPOSE = b"sipserver audit log\x00"


class AuditSecret:
    """Any thread. origin: where it comes from, in words. Raises SettingsError for a secret that is too short."""

    def __init__(self, secret: bytes, origin: str = "the settings") -> None:
        if len(secret) < LEAST:
            reason = f"the secret of {origin} has {len(secret)} bytes; {LEAST} are needed at least"
            raise SettingsError(reason, key="audit")
        self._secret, self.origin = secret, origin

    def of(self, tenant: str) -> bytes:
        """32 bytes."""
        return HKDF(SHA256(), 32, salt=None, info=_PURPOSE + tenant.encode()).derive(self._secret)


def is_given(settings: AuditSettings, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether there is one, good or not, or it cannot be seen whether there is."""
    if environment.get(settings.secret_env):
        return True
    try:
        return settings.secret_file.exists()
    except OSError:
        return True


def load(settings: AuditSettings, *, make: bool, environment: Mapping[str, str] = os.environ) -> AuditSecret:
    """The secret of this server. make: write the file if there is none; several processes may do so at once.

    Blocks for a moment, on the disk. Raises SettingsError when there is no secret, or one that others may read.
    """
    if given := environment.get(settings.secret_env):
        return AuditSecret(given.encode(), f"the variable {settings.secret_env}")
    try:
        if make and not settings.secret_file.exists():
            _make(settings.secret_file)
        return AuditSecret(_read(settings.secret_file), str(settings.secret_file))
    except FileNotFoundError as problem:
        reason = f"there is no secret: {settings.secret_env} is not set, and {settings.secret_file} does not exist"
        raise SettingsError(reason, key="audit") from problem
    except OSError as problem:
        raise SettingsError(f"the secret cannot be used: {problem}", key="audit.secret_file") from problem


def _make(file: Path) -> None:
    """Whole or not at all, and never over another one: the first of several processes wins."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w") as writer:
            writer.write(secrets.token_hex(LEAST) + "\n")
            writer.flush()
            os.fsync(handle)
        with contextlib.suppress(FileExistsError):
            os.link(draft, file)
    finally:
        draft.unlink()


def _read(file: Path) -> bytes:
    if file.stat().st_mode & stat.S_IRWXO:
        raise SettingsError(f"others may read {file}: run `chmod 600 {file}`", key="audit.secret_file")
    return file.read_bytes().strip()
