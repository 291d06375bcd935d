"""Deletes the files that nobody refers to any more, on the machine that has them, and proves it.

Owns what may be deleted: files of calls below the folder of recordings, nothing else. What cannot be deleted, or
proved, is told and tried again, and keeps no other file. Refuses to decide which calls go.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sipserver.log import logger
from sipserver.store.database import brief, is_trouble
from sipserver.store.doomed import Doomed, DoomedFiles
from sipserver.tenants import sound_files
from sipserver.tenants.audit_log import NOBODY, AuditLog

MOST = 50
FIRST_RETRY, LAST_RETRY = timedelta(minutes=1), timedelta(days=1)
_PART = 1 << 20

Gone = list[tuple[str, str]]
"""Names of files below the folder, and the SHA-256 of each, as it lay on the disk."""


class Shredder:
    """Loop thread; files are read and deleted in threads. folder: of recordings. node: this machine in call records."""

    def __init__(self, node: str, folder: Path, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.node, self._folder, self._clock = node, folder, clock
        self._log = logger("tenants")

    async def work(self, files: DoomedFiles, log: Callable[[], Awaitable[AuditLog]]) -> int:
        """Delete what is due, in batches. Returns how many were dealt with. Safe to cancel: what was deleted and not
        yet proved is proved as missing later.
        """
        dealt = 0
        while due := await files.due(self.node, self._clock(), MOST):
            audit = await log()
            by_deed: dict[tuple[str, str], list[tuple[Doomed, Gone]]] = {}
            for file in due:
                gone = await self._delete(file, files)
                if gone is not None:
                    by_deed.setdefault((file.tenant, file.reason), []).append((file, gone))
            for (tenant, reason), deleted in by_deed.items():
                try:
                    await self._prove(audit, tenant, reason, deleted)
                except Exception as problem:  # the edge of a tenant
                    if is_trouble(problem):
                        raise
                    for file, _gone in deleted:
                        await self._again(file, files, brief(problem))
                    continue
                await files.done([file.number for file, _gone in deleted])
            dealt += len(due)
        return dealt

    async def _delete(self, file: Doomed, files: DoomedFiles) -> Gone | None:
        """None: it could not be deleted, and is tried again."""
        try:
            if await files.needed(file):
                self._log.warning("another call has this file, too: it stays", call=file.call_id, path=file.path)
                return []
            return await asyncio.to_thread(_remove, Path(file.path), self._folder, file.call_id, file.kind)
        except OSError as problem:
            await self._again(file, files, problem.strerror or str(problem))
            return None

    async def _again(self, file: Doomed, files: DoomedFiles, error: str) -> None:
        pause = min(FIRST_RETRY * 2 ** min(file.attempts, 20), LAST_RETRY)
        await files.failed(file, error, self._clock() + pause)
        self._log.error("a file cannot be deleted; it is tried again", path=file.path, error=error)

    async def _prove(self, log: AuditLog, tenant: str, reason: str, deleted: Sequence[tuple[Doomed, Gone]]) -> None:
        gone = sorted(each for _file, found in deleted for each in found)
        lines = "\n".join(f"{name} {sha256}" for name, sha256 in gone)
        detail = {
            "files": len(gone),
            "missing": sum(not found for _file, found in deleted),
            "files_sha256": hashlib.sha256(lines.encode()).hexdigest(),
            "node": self.node,
        }
        action = "privacy.files_deleted" if reason == "erasure" else "retention.files_deleted"
        await log.append(tenant or NOBODY, actor="system", action=action, detail=detail)


def _remove(path: Path, folder: Path, call_id: str, kind: str) -> Gone:
    """A recording goes with the others of its call. Blocks. Raises OSError for what cannot be deleted, and for what
    lies elsewhere.
    """
    folder = folder.resolve()
    if folder not in path.resolve().parents:
        raise OSError(f"it does not lie in {folder}")
    paths = [path]
    if kind == "recording":
        paths = sound_files.of_call(path, call_id)
    gone = []
    for each in paths:
        if each.is_file():
            sha256 = _sha256(each)
            each.unlink()
            gone.append((str(each.resolve().relative_to(folder)), sha256))
    return gone


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_PART):
            found.update(part)
    return found.hexdigest()
