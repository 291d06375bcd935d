"""What is kept about a person, by REST: given to them, or erased.

Owns the file that is given, which has no name in any folder: it goes with the process, however that ends; and that
nobody's slow reader keeps others waiting. Refuses to know what belongs to a person (`tenants.privacy`).
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from typing import BinaryIO

from aiohttp import web
from pydantic import Field

from sipserver.api.rest.models import Given, Taken
from sipserver.api.rest.operations import Answered, Asked, Operation
from sipserver.gate.requests import address_of
from sipserver.log import logger
from sipserver.tenants.keys import Scope
from sipserver.tenants.privacy import Privacy

PART_BYTES = 64 * 1024
AT_ONCE = 1
"""Exports that are made at a time in one process; further ones wait, also those of a tenant whose last one is sent."""
STALLED_S = 60.0
"""Whoever takes nothing of an export for so long is cut off."""


class Person(Taken):
    """Whom it is about."""

    number: str = Field(min_length=1, max_length=100, description="As +4930123456, or the user of a SIP address.")
    country: str = Field(default="", pattern=r"^([A-Z]{2})?$", description="Of a number without `+`, as `DE`.")


class PersonErased(Given):
    calls: int
    messages: int = Field(description="Of webhooks.")
    files: int = Field(description="Deleted within a minute by the machines that have them, while their servers run.")
    running: int = Field(description="Calls that are not over: ask again when they are.")


class PrivacyOperations:
    """Loop thread. stalled_s: for tests."""

    def __init__(self, privacy: Privacy, *, stalled_s: float = STALLED_S) -> None:
        self._privacy, self._stalled_s = privacy, stalled_s
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._tenants: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def operations(self) -> Sequence[Operation]:
        return [
            Operation(
                "erasePerson",
                "POST",
                "/privacy/erase",
                Scope.PRIVACY_WRITE,
                self._erase,
                "Erase what is kept about a number",
                "Records, events, transcripts, sound, what webhooks still have. Bills stay. It cannot be undone.",
                body=Person,
                answer=PersonErased,
                refusals=(400,),
            ),
            Operation(
                "exportPerson",
                "POST",
                "/privacy/export",
                Scope.PRIVACY_WRITE,
                self._export,
                "Fetch what is kept about a number",
                "A ZIP file: a JSON file a call, and sound, whichever machine of a fleet has it. `manifest.json` "
                "counts, also calls whose sound could not be had from another machine (`elsewhere`).",
                body=Person,
                media_type="application/zip",
                refusals=(400,),
            ),
        ]

    async def _erase(self, asked: Asked) -> Answered:
        wanted: Person = asked.body
        erased = await self._privacy.erase(
            asked.key.tenant,
            wanted.number,
            country=wanted.country,
            actor=asked.key.actor,
            source=address_of(asked.request),
        )
        return Answered(
            PersonErased(calls=erased.calls, messages=erased.messages, files=erased.files, running=erased.running)
        )

    async def _export(self, asked: Asked) -> web.StreamResponse:
        wanted: Person = asked.body
        async with self._tenants[asked.key.tenant]:
            file = await asyncio.to_thread(tempfile.TemporaryFile)
            try:
                async with self._turn:
                    await self._privacy.export(
                        asked.key.tenant,
                        wanted.number,
                        file,
                        country=wanted.country,
                        actor=asked.key.actor,
                        source=address_of(asked.request),
                    )
                return await _sent(asked.request, file, self._stalled_s)
            finally:
                await asyncio.to_thread(file.close)


async def _sent(request: web.Request, file: BinaryIO, stalled_s: float) -> web.StreamResponse:
    """The connection is cut, so that nobody takes what came for all, when its reader stalls."""
    size = await asyncio.to_thread(file.seek, 0, os.SEEK_END)
    await asyncio.to_thread(file.seek, 0)
    response = web.StreamResponse(
        headers={
            "Content-Type": "application/zip",
            "Content-Disposition": 'attachment; filename="export.zip"',
            "Content-Length": str(size),
        }
    )
    try:
        await response.prepare(request)
        while part := await asyncio.to_thread(file.read, PART_BYTES):
            await asyncio.wait_for(response.write(part), stalled_s)
        await asyncio.wait_for(response.write_eof(), stalled_s)
    except ConnectionError:
        pass  # whoever asked is gone
    except TimeoutError:
        logger("api").warning("an export is not read by whoever asked for it, and is cut off", size=size)
        if request.transport is not None:
            request.transport.abort()
    return response
