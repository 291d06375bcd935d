"""What the log says of a request that fails by our mistake: one line as `log.setup` wants it, and no variable's value.

Modules that log were imported before the test sets the log up, as those of a server are.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from sipserver import log
from sipserver.api.metrics import Metrics
from sipserver.api.rest.problems import as_problems
from sipserver.api.server import application
from sipserver.gate.connection import Connection
from tests.gate.web import site

KEY = "sips_a-key-that-stands-in-a-variable"


async def broken(request: web.Request) -> web.Response:
    text = request.headers["Authorization"]
    raise ZeroDivisionError(len(text))


@contextlib.asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    """Its URL."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def fails(url: str) -> None:
    async with aiohttp.ClientSession() as client, client.get(url, headers={"Authorization": KEY}) as answer:
        assert answer.status == 500


def the_line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The one that tells of the failure; all are what they have to be."""
    said = capsys.readouterr()
    assert KEY not in said.out + said.err
    lines: list[dict[str, Any]] = [json.loads(line) for line in said.err.splitlines()]
    [line] = (each for each in lines if "exception" in each)
    assert (line["level"], line["exception"].splitlines()[-1]) == ("error", f"ZeroDivisionError: {len(KEY)}")
    return line


@pytest.mark.parametrize("path", ["/door", "/api/v1/door"])
async def test_a_door_and_an_operation_of_rest(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    log.setup()
    rest = web.Application(middlewares=[as_problems])
    rest.add_routes([web.get("/door", broken)])
    app = application(lambda: [], Metrics(), routes=[web.get("/door", broken)], apps={"/api/v1": rest})
    async with serving(app) as url:
        await fails(url + path)
    line = the_line(capsys)
    assert (line["room"], line["event"], line["path"]) == ("api", "a request failed", path)


async def test_a_websocket(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup()

    async def fail(connection: Connection) -> None:
        async for message in connection:
            raise ZeroDivisionError(len(message))

    async with site(serve=fail) as there:
        client = await there.connect()
        await client.send_str(KEY)
        closing = await client.receive()
        assert closing.data == 1011
        await client.close()
    line = the_line(capsys)
    assert (line["room"], line["event"], line["kind"]) == ("gate", "a WebSocket broke", "test")
