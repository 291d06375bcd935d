"""Messages that are made once for many: a client reads them as any other, and one that is slow is cut."""

from __future__ import annotations

from aiohttp import WSMsgType

from sipserver.gate.connection import Connection
from sipserver.gate.frames import text_frame
from sipserver.gate.settings import GateSettings
from tests.fakes.until import until
from tests.gate.web import bare, site

LENGTHS = (0, 1, 125, 126, 127, 65_535, 65_536, 200_000)


async def stay(connection: Connection) -> None:
    async for _ in connection:
        pass


async def test_texts_of_all_lengths_between_others() -> None:
    texts = [("ü" + "x" * (length - 2)) if length > 1 else "x" * length for length in LENGTHS]
    async with site(GateSettings(queue_bytes=1 << 20), serve=stay) as there:
        client = await there.connect()
        connection = await there.came.get()
        assert connection.send("before")
        assert connection.send_frames(b"".join(map(text_frame, texts)), len(texts))
        assert connection.send("after")
        for expected in ("before", *texts, "after"):
            message = await client.receive(5)
            assert (message.type, message.data) == (WSMsgType.TEXT, expected)
        assert connection.sent == len(texts) + 2
        await client.close()
        await until(lambda: not connection.open)
        assert not connection.send_frames(text_frame("late"), 1)
        assert connection.sent == len(texts) + 2


async def test_who_does_not_read_is_cut() -> None:
    frames = text_frame("x" * 1000) * 4
    async with site(GateSettings(queue_bytes=16_384), serve=stay) as there, bare(there.port):
        connection = await there.came.get()
        await until(lambda: not connection.send_frames(frames, 4), "slowness")
        assert (connection.dropped, connection.code) == (4, 4429)
        assert connection.waiting_bytes <= 4 * 16_384
