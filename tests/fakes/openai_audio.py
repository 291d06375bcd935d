"""A server that speaks the audio part of OpenAI's API over a real socket.

`POST /v1/audio/transcriptions` (multipart upload, JSON answer) and `POST /v1/audio/speech` (raw 24 kHz PCM, chunked).
A test sets what it answers and reads what was asked.
"""

from __future__ import annotations

import asyncio
import io
import wave
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
from aiohttp import web

PCM_HZ = 24_000


@dataclass
class Asked:
    """One request. fields: form fields or JSON; sound: the uploaded WAV's samples and rate."""

    path: str
    authorization: str
    fields: dict[str, Any]
    sound: np.ndarray[Any, np.dtype[np.int16]] | None = None
    rate_hz: int = 0


@dataclass
class OpenAiAudioServer:
    """Start with `async with`. status: what it answers with when not 200. hold: while clear, answers wait.

    chunks: how many bytes each write of speech has; odd numbers split samples. after: bytes of speech before `hold`.
    broken: a body that is sent instead of a transcript; speech is cut off after `after` bytes if it is set.
    """

    text: str = "Hello there."
    language: str = "english"
    seconds: float = 0.5
    chunks: int = 4801
    status: int = 200
    after: int = 0
    asked: list[Asked] = field(default_factory=list)
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    broken: str = ""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def __aenter__(self) -> OpenAiAudioServer:
        self.hold.set()
        application = web.Application(client_max_size=16 << 20)
        application.router.add_post("/v1/audio/transcriptions", self._transcribe)
        application.router.add_post("/v1/audio/speech", self._speak)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/v1"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hold.set()
        await self._runner.cleanup()

    async def _transcribe(self, request: web.Request) -> web.Response:
        form = await request.post()
        upload = form["file"]
        assert isinstance(upload, web.FileField)
        with wave.open(io.BytesIO(upload.file.read())) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
            rate_hz = file.getframerate()
        fields = {name: value for name, value in form.items() if name != "file"}
        self.asked.append(Asked(request.path, request.headers["Authorization"], fields, samples, rate_hz))
        await self._wait()
        if self.broken:
            return web.Response(text=self.broken, content_type="application/json")
        if self.status != 200:
            return self._refusal()
        answer: dict[str, Any] = {"text": f" {self.text} "}
        if fields["response_format"] == "verbose_json":
            segments = [{"id": 0, "text": self.text, "avg_logprob": -0.25}, {"id": 1, "text": "", "avg_logprob": -0.75}]
            answer |= {"task": "transcribe", "language": self.language, "duration": 1.0, "segments": segments}
        return web.json_response(answer)

    async def _speak(self, request: web.Request) -> web.StreamResponse:
        fields = await request.json()
        self.asked.append(Asked(request.path, request.headers["Authorization"], fields))
        if self.status != 200:
            return self._refusal()
        answer = web.StreamResponse(headers={"Content-Type": "audio/pcm"})
        time_s = np.arange(int(self.seconds * PCM_HZ)) / PCM_HZ
        payload = (8000 * np.sin(2 * np.pi * 440 * time_s)).astype("<i2").tobytes()
        await answer.prepare(request)
        for start in range(0, len(payload), self.chunks):
            if start >= self.after:
                await self._wait()
                if self.broken:
                    assert request.transport is not None
                    request.transport.abort()
            await answer.write(payload[start : start + self.chunks])
        await answer.write_eof()
        return answer

    async def _wait(self) -> None:
        try:
            await self.hold.wait()
        except asyncio.CancelledError:
            self.gone.set()
            raise

    def _refusal(self) -> web.Response:
        error = {"error": {"message": "not today", "type": "test", "param": None, "code": None}}
        return web.json_response(error, status=self.status)
