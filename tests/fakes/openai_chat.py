"""A double of OpenAI's /chat/completions that speaks the real wire format (SSE) over a real socket of 127.0.0.1."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any

from aiohttp import web

Step = dict[str, Any] | bytes | float | None
"""A chunk, raw bytes, a pause in seconds, or None: drop the connection."""


def text(*tokens: str, reason: str = "stop", usage: bool = True) -> list[Step]:
    """The stream of an answer in words."""
    steps: list[Step] = [_chunk({"role": "assistant", "content": ""})]
    steps += [_chunk({"content": token}) for token in tokens]
    return [*steps, *_end(reason, usage)]


def tool_call(name: str, *pieces: str, id_: str = "call_abc", index: int = 0) -> list[Step]:
    """The stream of a tool call whose arguments come in pieces, as OpenAI sends them."""
    head = {"index": index, "id": id_, "type": "function", "function": {"name": name, "arguments": ""}}
    steps: list[Step] = [_chunk({"role": "assistant", "content": None, "tool_calls": [head]})]
    steps += [_chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}) for piece in pieces]
    return [*steps, *_end("tool_calls", usage=True)]


def error_in_stream(message: str) -> list[Step]:
    return [_chunk({"role": "assistant", "content": "I"}), {"error": {"message": message, "type": "server_error"}}]


class OpenAiChat:
    """`async with OpenAiChat() as server:` listens on `server.base_url`. Answers play in order, the last one again."""

    def __init__(self, *answers: list[Step] | web.Response) -> None:
        self.answers = deque(answers or (text("Hello", " there."),))
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.dropped = asyncio.Event()
        """A client has closed the connection before its answer was complete."""

    async def __aenter__(self) -> OpenAiChat:
        application = web.Application()
        application.router.add_post("/v1/chat/completions", self._complete)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.base_url = f"http://{host}:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(await request.json())
        self.keys.append(request.headers.get("Authorization", ""))
        answer = self.answers.popleft() if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, web.Response):
            return web.Response(status=answer.status, body=answer.body, content_type="application/json")
        if not self.requests[-1].get("stream"):
            return web.json_response(_complete_answer())
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        try:
            await response.prepare(request)
            for step in answer:
                if step is None:
                    assert request.transport is not None
                    request.transport.abort()
                    return response
                if isinstance(step, float):
                    await asyncio.sleep(step)
                else:
                    await response.write(step if isinstance(step, bytes) else _event(step))
            await response.write(b"data: [DONE]\n\n")
        except (ConnectionResetError, asyncio.CancelledError):
            self.dropped.set()
            raise
        return response


def status(code: int, message: str, error_code: str | None = None) -> web.Response:
    """An error as OpenAI words it."""
    body = {"error": {"message": message, "type": "error", "param": None, "code": error_code}}
    return web.json_response(body, status=code)


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def _chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "fake",
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
    }


def _end(reason: str, usage: bool) -> list[Step]:
    steps: list[Step] = [_chunk({}, reason)]
    if usage:
        counts = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
        steps.append({**_chunk({}), "choices": [], "usage": counts})
    return steps


def _complete_answer() -> dict[str, Any]:
    message = {"role": "assistant", "content": "Hello"}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "fake",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }


class ForgetfulChat:
    """A server that keeps connections alive as it promises, and closes each when the next request comes on it."""

    def __init__(self) -> None:
        self.base_url = ""
        self.connections = 0

    async def __aenter__(self) -> ForgetfulChat:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        await reader.readexactly(int(length))
        body = b"".join(_event(step) for step in text("Hello") if isinstance(step, dict)) + b"data: [DONE]\n\n"
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: keep-alive\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        await writer.drain()
        await reader.read(1)
        writer.close()
