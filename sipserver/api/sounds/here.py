"""Sound files on this machine's disk as answers to requests, plain and encrypted.

Owns that nothing outside the folder of recordings is given away. Refuses to know who asks and whether they may.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from pathlib import Path

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter

from sipserver.api.rest import sealed_sound
from sipserver.api.rest.sealed_sound import Before, at_once
from sipserver.calls import sound_files
from sipserver.calls.keyring import Keyring
from sipserver.calls.sealed_file import SealedFile
from sipserver.tenants.sound_files import of_call

CONDITIONS = (hdrs.IF_MATCH, hdrs.IF_NONE_MATCH, hdrs.IF_MODIFIED_SINCE, hdrs.IF_UNMODIFIED_SINCE)
"""Those of a request for all of a file."""


class Sounds:
    """Loop thread. folder: of recordings. ring: what opens encrypted ones."""

    def __init__(self, folder: Path, ring: Keyring) -> None:
        self._folder, self._ring = folder, ring

    async def find(self, path: str) -> Path | None:
        """The file, if it is on this machine."""
        return await asyncio.to_thread(_inside, Path(path), self._folder)

    async def of_call(self, path: str, call_id: str) -> Sequence[str]:
        """The paths of all recordings of the call whose first one is at this path, which are on this machine."""
        return await asyncio.to_thread(_all_inside, Path(path), call_id, self._folder)

    async def answer(
        self, request: web.Request, path: Path, *, tenant: str, whole: bool, name: str, before: Before = at_once
    ) -> web.StreamResponse:
        """Whole or the range that is asked for. path: that `find` gave. tenant, whole: an encrypted file must be this
        tenant's, and have an end. name: for whoever saves it. before: waited for before the first byte of what is sent
        here; of a plain file nothing is sent yet when this returns. Raises Damaged, KeyMissing, what `before` raises.
        """
        if not sound_files.is_sealed(path):
            return await _plain(request, path, name)
        opens = functools.partial(SealedFile, path, self._ring, tenant=tenant, unfinished=not whole)
        return await sealed_sound.answer(request, opens, name, before)


async def _plain(request: web.Request, path: Path, name: str) -> web.StreamResponse:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    if hdrs.RANGE not in request.headers:
        return web.FileResponse(path, headers=headers)
    found = await asyncio.to_thread(path.stat)
    tag = f"{found.st_mtime_ns:x}-{found.st_size:x}"  # as FileResponse makes it
    try:
        part = sealed_sound.part_asked(request, found.st_size, tag, found.st_mtime)
    except ValueError:
        return sealed_sound.no_such_range(found.st_size)
    return (_Whole if part is None else web.FileResponse)(path, headers=headers)


class _Whole(web.FileResponse):
    """All of a file, whatever part is asked for: aiohttp knows dates in If-Range alone, and refuses unknown units."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        asked = {str(name): request.headers[name] for name in CONDITIONS if name in request.headers}
        headers = {name: value.encode(errors="replace").decode() for name, value in asked.items()}  # clone takes UTF-8
        return await super().prepare(request.clone(headers=headers))


def _inside(path: Path, folder: Path) -> Path | None:
    """The file, if it is there and below the folder, symbolic links followed."""
    found = path.resolve()
    return found if found.is_relative_to(folder.resolve()) and found.is_file() else None


def _all_inside(path: Path, call_id: str, folder: Path) -> list[str]:
    return [str(found) for found in of_call(path, call_id) if _inside(found, folder) is not None]
