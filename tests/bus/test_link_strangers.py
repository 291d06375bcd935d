"""Something that is not Redis listens at `bus.url`: the operator's mistake, told as one."""

from __future__ import annotations

import asyncio

import pytest

from sipserver.bus import table
from sipserver.bus.settings import BusSettings
from sipserver.errors import SettingsError


async def test_an_http_server_is_no_redis() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    bus = table.make(BusSettings(url=f"redis://127.0.0.1:{port}/0"), node="one", run="1")
    try:
        with pytest.raises(SettingsError, match="what answers is no Redis"):
            await bus.open()
    finally:
        await bus.close()
        server.close()
        await server.wait_closed()
