"""What is kept about a person, by REST: given to them, or erased.

Owns the file that is given until it is sent. Refuses to know what belongs to a person (`tenants.privacy`).
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web
from pydantic import Field

from sipserver.api.rest.models import Given, Taken
from sipserver.api.rest.operations import Answered, Asked, Operation
from sipserver.gate.requests import address_of
from sipserver.tenants.keys import Scope
from sipserver.tenants.privacy import Privacy

PART_BYTES = 64 * 1024
AT_ONCE = 1
"""Exports at a time in one process; further ones wait."""


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
    """Loop thread."""

    def __init__(self, privacy: Privacy) -> None:
        self._privacy = privacy
        self._turn = asyncio.Semaphore(AT_ONCE)

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
        async with self._turn:
            folder = await asyncio.to_thread(tempfile.TemporaryDirectory, prefix="sipserver-export-")
            try:
                file = Path(folder.name) / "export.zip"
                await self._privacy.export(
                    asked.key.tenant,
                    wanted.number,
                    file,
                    country=wanted.country,
                    actor=asked.key.actor,
                    source=address_of(asked.request),
                )
                return await _sent(asked.request, file)
            finally:
                await asyncio.to_thread(folder.cleanup)


async def _sent(request: web.Request, file: Path) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={
            "Content-Type": "application/zip",
            "Content-Disposition": 'attachment; filename="export.zip"',
            "Content-Length": str((await asyncio.to_thread(file.stat)).st_size),
        }
    )
    await response.prepare(request)
    with await asyncio.to_thread(file.open, "rb") as parts:
        while part := await asyncio.to_thread(parts.read, PART_BYTES):
            await response.write(part)
    return response
