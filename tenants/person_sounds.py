"""The sound of a person's calls on its way into the file that they are given, from this machine and from others.

Owns which files belong to a call, and that a machine that is silent is not asked for each of a thousand calls. Refuses
to know how other machines are reached.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from sipserver.errors import BusDown, MachineAway, NotFound, RemoteError
from sipserver.store.reader import CallRow, EventRow
from sipserver.tenants import sound_files
from sipserver.tenants.sound_files import Opens

_PART = 1 << 18


class Elsewhere(Protocol):
    """Sound on other machines. A path is one there. Raises NotFound for what is gone, RemoteError for what the other
    machine cannot give, MachineAway, BusDown.
    """

    async def recordings(self, node: str, tenant: str, call_id: str, path: str) -> Sequence[str]:
        """All recordings of the call whose first one this is."""
        ...

    async def fetch(self, node: str, tenant: str, call_id: str, path: str, into: BinaryIO) -> None:
        """Write a file, as WAV, into another one. Raises OSError, too."""
        ...


class PersonSounds:
    """For one archive; loop thread, files are read and written in threads. folder: for what is fetched, until it is in
    the archive; None: the usual one. recordings: nothing outside this folder is given. given: files; lacking: calls of
    which some are not.
    """

    def __init__(
        self, archive: zipfile.ZipFile, folder: Path | None, recordings: Path, opens: Opens, elsewhere: Elsewhere | None
    ) -> None:
        self.given = self.lacking = 0
        self._archive, self._folder, self._recordings = archive, folder, recordings
        self._opens, self._elsewhere = opens, elsewhere
        self._silent: set[str] = set()

    async def put(self, call: CallRow, events: Sequence[EventRow]) -> list[str]:
        """What there is of a call goes into the archive; its names there. Raises OSError, and KeyMissing and Damaged
        for files of this machine.
        """
        first = call.recording_path or ""
        left = [str(event.fields.get("path", "")) for event in events if event.kind == "voicemail.left"]
        recordings = await asyncio.to_thread(self._recordings_here, first, call.id)
        messages = await asyncio.to_thread(self._here, map(Path, left))
        named = [await asyncio.to_thread(self._put_file, path, call.tenant) for path in (*recordings, *messages)]
        missing = "" if recordings else first
        others = [path for path in left if path and Path(path) not in messages]
        whole = not missing
        if (missing or others) and self._elsewhere is not None:
            fetched, whole = await self._fetch(self._elsewhere, call, missing, others)
            named += fetched
        self.given += len(named)
        self.lacking += not whole
        return named

    def _recordings_here(self, first: str, call_id: str) -> list[Path]:
        return self._here(sound_files.of_call(Path(first), call_id)) if first else []

    def _here(self, paths: Iterable[Path]) -> list[Path]:
        within = self._recordings.resolve()
        return [path for path in paths if within in path.resolve().parents and path.is_file()]

    async def _fetch(
        self, elsewhere: Elsewhere, call: CallRow, first: str, messages: Sequence[str]
    ) -> tuple[list[str], bool]:
        """From the machine of the call. first: of the recordings; empty: they are here. The names in the archive, and
        whether all is there.
        """
        named: list[str] = []
        if call.node in self._silent:
            return named, False
        try:
            recordings = await _recordings(elsewhere, call, first) if first else ()
            whole = bool(recordings) or not first
            for path in (*recordings, *messages):
                try:
                    named.append(await self._fetch_file(elsewhere, call, path))
                except NotFound:
                    continue  # deleted, as messages are one by one
                except RemoteError:
                    whole = False
        except (MachineAway, BusDown):
            self._silent.add(call.node)
            whole = False
        return named, whole

    async def _fetch_file(self, elsewhere: Elsewhere, call: CallRow, path: str) -> str:
        with tempfile.TemporaryFile(dir=self._folder) as sound:
            await elsewhere.fetch(call.node, call.tenant, call.id, path, sound)
            sound.seek(0)
            return await asyncio.to_thread(self._put, Path(path), sound, call.started_at.timestamp())

    def _put_file(self, path: Path, tenant: str) -> str:
        """Blocks."""
        with self._opens(path, tenant) as sound:
            return self._put(path, sound, path.stat().st_mtime)

    def _put(self, path: Path, sound: BinaryIO, at_s: float) -> str:
        """Blocks. at_s: since 1970."""
        entry = zipfile.ZipInfo(f"recordings/{sound_files.wav_name(path)}", time.localtime(at_s)[:6])
        entry.compress_type = zipfile.ZIP_DEFLATED
        with self._archive.open(entry, "w", force_zip64=True) as out:
            shutil.copyfileobj(sound, out, _PART)
        return entry.filename


async def _recordings(elsewhere: Elsewhere, call: CallRow, first: str) -> Sequence[str]:
    try:
        return await elsewhere.recordings(call.node, call.tenant, call.id, first)
    except (NotFound, RemoteError):
        return ()
