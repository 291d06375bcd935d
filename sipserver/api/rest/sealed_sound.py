"""An encrypted recording as the answer to a request, whole or a part of it: what `web.FileResponse` is for plain files.

Owns If-None-Match, and for plain files as well Range and If-Range (RFC 9110, 13 and 14) for one range. The entity tag
is the recording's own id, which stays when its key is changed. Refuses to know keys and whose the recording is.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from aiohttp import ETag, hdrs, web

from sipserver.api.rest.problems import problem
from sipserver.calls.sealed_file import SealedFile
from sipserver.errors import Damaged, KeyMissing
from sipserver.log import logger

_log = logger("api")

PART_BYTES = 1 << 18
"""Decrypted at a time, in a thread."""


Before = Callable[[], Awaitable[None]]


async def at_once() -> None:
    """Nothing is waited for."""


async def answer(
    request: web.Request, opens: Callable[[], SealedFile], name: str, before: Before
) -> web.StreamResponse:
    """opens: called in a thread. name: for whoever saves it. before: what is waited for before the first byte is sent.
    Loop thread; safe to cancel. Raises what `opens` and `before` raise.

    Where the file turns out to be damaged on the way, the connection is cut, so that nobody takes what came for all.
    """
    try:
        sound = await asyncio.to_thread(opens)
    except (Damaged, KeyMissing) as refusal:
        _log.error("a recording cannot be opened", error=str(refusal))
        raise
    with contextlib.closing(sound):
        return await _answer(request, sound, name, before)


async def _answer(request: web.Request, sound: SealedFile, name: str, before: Before) -> web.StreamResponse:
    tag = ETag(sound.id)
    if any(each.value in (sound.id, "*") for each in request.if_none_match or ()):
        unchanged = web.Response(status=HTTPStatus.NOT_MODIFIED)
        unchanged.etag = tag
        return unchanged
    try:
        begin, end = part_asked(request, sound.size, sound.id) or (0, sound.size)
    except ValueError:
        return no_such_range(sound.size)
    whole = (begin, end) == (0, sound.size)
    response = web.StreamResponse(status=HTTPStatus.OK if whole else HTTPStatus.PARTIAL_CONTENT)
    response.content_type, response.content_length, response.etag = "audio/x-wav", end - begin, tag
    response.headers[hdrs.ACCEPT_RANGES] = "bytes"
    response.headers[hdrs.CONTENT_DISPOSITION] = f'attachment; filename="{name}"'
    if not whole:
        response.headers[hdrs.CONTENT_RANGE] = f"bytes {begin}-{end - 1}/{sound.size}"
    await before()
    await response.prepare(request)
    try:
        while begin < end:
            part = await asyncio.to_thread(_read, sound, begin, min(end - begin, PART_BYTES))
            await response.write(part)
            begin += len(part)
    except ConnectionError:
        return response  # whoever asked is gone
    except (Damaged, OSError) as broken:
        _log.error("a recording cannot be read to its end", error=str(broken))
        if request.transport is not None:
            request.transport.abort()
        return response
    await response.write_eof()
    return response


def no_such_range(size: int) -> web.Response:
    return problem(416, f"the recording has {size} bytes", {str(hdrs.CONTENT_RANGE): f"bytes */{size}"})


def part_asked(request: web.Request, size: int, tag: str, modified_s: float | None = None) -> tuple[int, int] | None:
    """Where to begin and to end; None: with all of it, for no part is asked for, or one of another version (If-Range),
    or in a unit that nobody knows. modified_s: since the epoch, if Last-Modified is told. Raises ValueError for a range
    that is none, or that lies behind the end.
    """
    unit, _, _ = request.headers.get(hdrs.RANGE, "").partition("=")
    if unit.strip().lower() != "bytes" or not _is_same(request, tag, modified_s):
        return None
    begin, end, _step = request.http_range.indices(size)
    if begin >= end:
        raise ValueError("nothing is there")
    return begin, end


def _is_same(request: web.Request, tag: str, modified_s: float | None) -> bool:
    """Whether If-Range means what is there now: by an entity tag that is not weak, or by the very date (13.1.5)."""
    meant = request.headers.get(hdrs.IF_RANGE)
    if meant is None or meant == f'"{tag}"':
        return True
    since = request.if_range
    return since is not None and modified_s is not None and since.timestamp() == math.ceil(modified_s)


def _read(sound: SealedFile, begin: int, count: int) -> bytes:
    sound.seek(begin)
    parts = []
    while count and (part := sound.read(count)):
        parts.append(part)
        count -= len(part)
    if count:
        raise OSError("the file became shorter")
    return b"".join(parts)
