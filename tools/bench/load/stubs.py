"""Speech and language services that answer at once what they always answer: `python -m tools.bench.load.stubs`.

OpenAI's wire formats (chat completions as server-sent events, transcriptions from a multipart upload, speech as raw
24 kHz PCM), with delays like those of a fast service. They let an agent's own cost be seen without the models'. A GET
of /count tells how often each was asked. Owns a process; tests have doubles that can be scripted (`tests/fakes`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from aiohttp import web

TRANSCRIPT_S, FIRST_TOKEN_S, FIRST_SOUND_S = 0.12, 0.15, 0.12
TRANSCRIPT = "I would like to know when you are open."
ANSWER = ("We ", "are ", "open ", "from ", "nine ", "to ", "six, ", "Monday ", "to ", "Friday.")
PCM_HZ = 24_000
SOUND_S = 2.0
CHUNK_BYTES = 9_600
KEY = "SIPSERVER_BENCH_KEY"


def _sound() -> bytes:
    """Two seconds of a tone that swells and fades: loud enough to count as speech."""
    clock = np.arange(int(SOUND_S * PCM_HZ)) / PCM_HZ
    swell = np.abs(np.sin(2 * np.pi * 1.5 * clock))
    return (6_000 * swell * np.sin(2 * np.pi * 300 * clock)).astype("<i2").tobytes()


def _chunk(delta: dict[str, str], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "stub", "choices": [choice]}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


_ANSWER = b"".join(_chunk({"content": token}) for token in ANSWER) + _chunk({}, "stop") + b"data: [DONE]\n\n"


class Stubs:
    def __init__(self) -> None:
        self._asked: Counter[str] = Counter()
        self._speech = _sound()
        self.application = web.Application(client_max_size=16 << 20)
        self.application.router.add_post("/v1/chat/completions", self._chat)
        self.application.router.add_post("/v1/audio/transcriptions", self._transcribe)
        self.application.router.add_post("/v1/audio/speech", self._speak)
        self.application.router.add_get("/count", self._count)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        self._asked["chat"] += 1
        await asyncio.sleep(FIRST_TOKEN_S)
        if not asked.get("stream"):
            message = {"role": "assistant", "content": "".join(ANSWER)}
            return web.json_response({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        with contextlib.suppress(ConnectionError):  # the caller spoke on: nobody waits for this any more
            await answer.prepare(request)
            await answer.write(_ANSWER)
            await answer.write_eof()
        return answer

    async def _transcribe(self, request: web.Request) -> web.Response:
        await request.read()
        self._asked["transcriptions"] += 1
        await asyncio.sleep(TRANSCRIPT_S)
        segment = {"id": 0, "text": TRANSCRIPT, "avg_logprob": -0.2}
        return web.json_response({"text": TRANSCRIPT, "language": "english", "duration": 2.0, "segments": [segment]})

    async def _speak(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        self._asked["speech"] += 1
        await asyncio.sleep(FIRST_SOUND_S)
        answer = web.StreamResponse(headers={"Content-Type": "audio/pcm"})
        with contextlib.suppress(ConnectionError):
            await answer.prepare(request)
            for start in range(0, len(self._speech), CHUNK_BYTES):
                await answer.write(self._speech[start : start + CHUNK_BYTES])
            await answer.write_eof()
        return answer

    async def _count(self, _request: web.Request) -> web.Response:
        return web.json_response(dict(self._asked))


@dataclass(frozen=True, slots=True)
class Running:
    """A process with the stubs. base_url: for settings."""

    pid: int
    port: int

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def asked(self) -> Counter[str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/count", timeout=5) as answer:
            return Counter(json.loads(answer.read()))


@contextlib.contextmanager
def running() -> Iterator[Running]:
    """Started, and ended with the block."""
    process = subprocess.Popen([sys.executable, "-m", "tools.bench.load.stubs"], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        with process.stdout as said:
            yield Running(process.pid, int(said.readline()))
    finally:
        process.terminate()
        process.wait(10)


async def _serve() -> None:
    runner = web.AppRunner(Stubs().application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve())
