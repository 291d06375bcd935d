"""A client of the plain voice WebSocket that remembers what it sent and got, and comes back when its line breaks."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import struct
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

HEAD = struct.Struct("!Q")
PATIENCE_S = 10.0


class VoiceClient:
    """sound: L16 at 16 kHz that came, in order, without what came twice. told: JSON messages, in order."""

    def __init__(self, client: aiohttp.ClientSession, url: str, token: str, call_id: str = "") -> None:
        self._client, self._url, self._token = client, url, token
        self.call_id = call_id or str(uuid.uuid4())
        self.socket: aiohttp.ClientWebSocketResponse | None = None
        self.sound = bytearray()
        self.twice = 0
        """Bytes that came again after a resume."""
        self.told: list[dict[str, Any]] = []
        self.sent = bytearray()
        self.key = ""
        self.said = 0
        """The highest `n` of what the server said."""
        self.twice_said = 0
        self._listening: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.told if message["type"] == kind]

    async def connect(self, **hello: Any) -> None:
        """Begin the call: returns when the server has said `started`."""
        headers = {"Authorization": f"Bearer {self._token}"}
        await self._open(f"{self._url}/ws/voice/{self.call_id}", headers)
        await self.say("start", **hello)
        await self.until(lambda: bool(self.of("started")), "started")
        self.key = self.of("started")[0]["resume"]

    async def come_back(self) -> None:
        """Resume: returns when the server has said `resumed`; sends again what it has not got."""
        count = len(self.of("resumed"))
        await self._open(f"{self._url}/ws/voice/{self.call_id}?resume={self.key}", {})
        await self.say("resume", received=len(self.sound) // 2, said=self.said)
        await self.until(lambda: len(self.of("resumed")) > count, "resumed")
        at = self.of("resumed")[-1]["received"]
        assert self.socket is not None
        for start in range(at * 2, len(self.sent), 3200):
            await self.socket.send_bytes(HEAD.pack(start // 2) + bytes(self.sent[start : start + 3200]))

    async def say(self, kind: str, **fields: Any) -> None:
        assert self.socket is not None
        await self.socket.send_str(json.dumps({"type": kind, **fields}))

    async def speak(self, sound: bytes, *, pace_s: float = 0.02, chunk: int = 640) -> None:
        """Send sound; while the line is down it only counts as said. pace_s: between two messages."""
        for start in range(0, len(sound), chunk):
            part = sound[start : start + chunk]
            at = len(self.sent) // 2
            self.sent += part
            if self.socket is not None and not self.socket.closed:
                with contextlib.suppress(ConnectionError):
                    await self.socket.send_bytes(HEAD.pack(at) + part)
            await asyncio.sleep(pace_s)  # a microphone's pace is what is played here

    async def until(self, true: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not true():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{what} did not come: {self.told[-10:]}, {len(self.sound)} bytes of sound") from None

    def break_line(self) -> None:
        """The network is gone: no close frame."""
        assert self.socket is not None
        assert self.socket._conn is not None
        assert self.socket._conn.transport is not None
        self.socket._conn.transport.abort()

    async def ended(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait until the connection is over; its close code."""
        assert self._listening is not None
        async with asyncio.timeout(timeout_s):
            await asyncio.shield(self._listening)
        assert self.socket is not None
        return self.socket.close_code or 0

    async def close(self) -> None:
        if self.socket is not None:
            await self.socket.close()
        if self._listening is not None:
            await self._listening

    async def _open(self, url: str, headers: dict[str, str]) -> None:
        if self._listening is not None:
            await self._listening
        self.socket = await self._client.ws_connect(url, headers=headers, compress=0)
        self._listening = asyncio.create_task(self._listen(self.socket), name="voice client")

    async def _listen(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                body = json.loads(message.data)
                if body["type"] == "media":
                    self._hear(HEAD.pack(body["at"]) + base64.b64decode(body["payload"]))
                    self._news.set()
                    continue
                if "n" in body:
                    self.twice_said += body["n"] <= self.said
                    self.said = max(self.said, body["n"])
                self.told.append(body)
                if self.told[-1]["type"] == "mark":
                    with contextlib.suppress(ConnectionError):
                        await socket.send_str(json.dumps(self.told[-1]))
            elif message.type is aiohttp.WSMsgType.BINARY:
                self._hear(message.data)
            self._news.set()
        self._news.set()

    def _hear(self, message: bytes) -> None:
        at, sound = HEAD.unpack_from(message)[0] * 2, message[HEAD.size :]
        known = len(self.sound) - at
        assert known >= 0, f"{-known} bytes are missing"
        self.twice += min(known, len(sound))
        self.sound += sound[known:]


@asynccontextmanager
async def voice_client(url: str, token: str, call_id: str = "") -> AsyncIterator[VoiceClient]:
    """url: `ws://host:port`."""
    async with aiohttp.ClientSession() as session:
        client = VoiceClient(session, url, token, call_id)
        try:
            yield client
        finally:
            await client.close()
