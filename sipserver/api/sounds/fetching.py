"""Sound files that lie on other machines of a fleet: fetched there, and passed on as they come.

Owns how long another machine is waited for, and that no more than a part of a file is in memory, however slowly it is
taken. Refuses to know whether whoever asks may have the file: that is settled before.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import BinaryIO

import aiohttp
from aiohttp import hdrs, web
from yarl import URL

from sipserver.api.rest.sealed_sound import Before, at_once
from sipserver.api.sounds import tickets
from sipserver.api.sounds.doors import Doors
from sipserver.api.sounds.giving import NAMES, SOUND
from sipserver.api.sounds.tickets import Sound
from sipserver.bus.contract import Json, Leases
from sipserver.errors import Fault, MachineAway, NotFound, RemoteError, SipServerError
from sipserver.log import logger
from sipserver.open_files import high_socket

CONNECT_S = 2.0
HEAD_S = 5.0
"""For the other machine to begin with an answer."""
STALL_S = 15.0
"""For more of it to come."""
DOORS = 2
"""Gateways of the other machine that are tried, and as many again that have just come."""
ASKED = (hdrs.RANGE, hdrs.IF_RANGE, hdrs.IF_MATCH, hdrs.IF_NONE_MATCH, hdrs.IF_MODIFIED_SINCE, hdrs.IF_UNMODIFIED_SINCE)
"""Headers of the request that are passed on."""
TOLD = (
    hdrs.ACCEPT_RANGES, hdrs.CONTENT_DISPOSITION, hdrs.CONTENT_LENGTH, hdrs.CONTENT_RANGE, hdrs.CONTENT_TYPE, hdrs.ETAG,
    hdrs.LAST_MODIFIED, hdrs.RETRY_AFTER,
)  # fmt: skip
"""Headers of the answer that are."""

_log = logger("api")


class Fetching:
    """Loop thread; `close` at the end. node: this machine, which is not asked. Safe to cancel.

    Raises NotFound for what is gone, MachineAway, BusDown.
    """

    def __init__(self, leases: Leases, *, node: str) -> None:
        self._leases, self._node = leases, node
        self._doors = Doors(leases)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def answer(self, request: web.Request, sound: Sound, before: Before = at_once) -> web.StreamResponse:
        """The other machine's answer as ours. Where it breaks off, so does ours: nobody shall take a part for all.
        before: waited for before the first byte of sound; raises what it raises.
        """
        asked = {str(name): request.headers[name] for name in ASKED if name in request.headers}
        async with await self._opened(sound, SOUND, asked) as told:
            headers = {name: told.headers[name] for name in TOLD if name in told.headers}
            response = web.StreamResponse(status=told.status, headers=headers)
            if told.status < HTTPStatus.BAD_REQUEST:
                await before()
            try:
                await response.prepare(request)
                while part := await _part(told, sound.node):
                    await response.write(part)
                await response.write_eof()
            except MachineAway:
                if request.transport is not None:
                    request.transport.abort()
            except ConnectionError:
                pass  # whoever asked is gone
            return response

    async def recordings(self, node: str, tenant: str, call_id: str, path: str) -> Sequence[str]:
        """The paths of all recordings of a call there, whose first one this is. Raises RemoteError, too."""
        async with await self._opened(Sound(node, tenant, call_id, path, whole=False), NAMES) as told:
            _must_be_given(told, node)
            content = bytearray()
            while part := await _part(told, node):
                content += part
        return [str(found) for found in json.loads(content)]

    async def fetch(self, node: str, tenant: str, call_id: str, path: str, into: BinaryIO) -> None:
        """All of a file into another one. Raises RemoteError (it cannot be opened there), OSError, too."""
        async with await self._opened(Sound(node, tenant, call_id, path, whole=False), SOUND) as told:
            _must_be_given(told, node)
            while part := await _part(told, node):
                await asyncio.to_thread(into.write, part)

    # --- inside -------------------------------------------------------------------------------------------------------

    async def _opened(
        self, sound: Sound, what: str, headers: Mapping[str, str] | None = None
    ) -> aiohttp.ClientResponse:
        """An answer that has begun, of any status but 404."""
        if sound.node == self._node:
            raise _gone(sound.node)
        async with tickets.issued(self._leases, sound) as secret:
            asked = {**(headers or {}), hdrs.ACCEPT_ENCODING: "identity", hdrs.AUTHORIZATION: f"Bearer {secret}"}
            told = await self._knock(sound.node, what, asked)
        if told is None:
            raise MachineAway(f"the sound is on the machine {sound.node}, which does not answer now")
        if told.status == 404:
            told.close()
            raise _gone(sound.node)
        return told

    async def _knock(self, node: str, what: str, headers: Mapping[str, str]) -> aiohttp.ClientResponse | None:
        """At some doors of a machine; once none of those that were known opens, at those that are new."""
        tried: list[Json] = []
        for _ in range(2):
            doors = [door for door in await self._doors.of(node) if door not in tried]
            for door in random.sample(doors, min(DOORS, len(doors))):  # nosec B311
                tried.append(door)
                try:
                    async with asyncio.timeout(HEAD_S):
                        return await self._client().get(_url(door, what), headers=headers, allow_redirects=False)
                except (aiohttp.ClientError, TimeoutError) as problem:
                    _log.warning("another machine does not answer", machine=node, error=type(problem).__name__)
            self._doors.forget(node)
        if not tried:
            _log.warning("another machine is not there", machine=node)
        return None

    def _client(self) -> aiohttp.ClientSession:
        """Made when first needed. No connection is kept: one that is used again may be dead by then, and a new one
        costs little within a private network.
        """
        if self._session is None:
            limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=STALL_S)
            connector = aiohttp.TCPConnector(limit=0, force_close=True, socket_factory=high_socket)
            self._session = aiohttp.ClientSession(connector=connector, timeout=limits, auto_decompress=False)
        return self._session


async def _part(told: aiohttp.ClientResponse, node: str) -> bytes:
    """What has come of the body; empty: all came. Meanwhile the other machine is made to wait. Raises MachineAway when
    it breaks off.
    """
    try:
        return await told.content.readany()
    except (aiohttp.ClientError, TimeoutError) as broken:
        _log.warning("another machine broke off", machine=node, error=type(broken).__name__)
        raise MachineAway(f"the machine {node} broke off") from None


def _must_be_given(told: aiohttp.ClientResponse, node: str) -> None:
    if told.status != 200:
        _log.warning("another machine cannot give a sound", machine=node, status=told.status)
        raise RemoteError(SipServerError.__name__, f"{node}: {told.status}", fault=Fault.OURS, http_code=told.status)


def _url(door: Json, what: str) -> URL:
    return URL.build(scheme="http", host=str(door["host"]), port=int(door["port"]), path=what)


def _gone(node: str) -> NotFound:
    return NotFound(f"the sound is gone: {node}, which made it, does not have it")
