"""One guarded WebSocket over real sockets: what goes through, what is dropped, what ends it and with which word."""

from __future__ import annotations

import asyncio
import random
import socket
import struct

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from sipserver.errors import CarrierError, NotAllowed
from sipserver.gate.close_codes import Close
from sipserver.gate.connection import Connection
from sipserver.gate.settings import GateSettings
from tests.fakes.until import until
from tests.gate.web import bare, site

SOUND = b"\x00" * 3200
QUICK = GateSettings(heartbeat_s=0.05)


async def read_to_the_end(plain: socket.socket) -> bytes:
    """All that the server sends until it closes."""
    loop, payload = asyncio.get_running_loop(), b""
    async with asyncio.timeout(10):
        while more := await loop.sock_recv(plain, 65_536):
            payload += more
    return payload


def closing(code: Close) -> bytes:
    """The close frame (RFC 6455, 5.5.1) with the reason that belongs to the code."""
    body = struct.pack("!H", code) + code.reason.encode()
    return bytes([0x88, len(body)]) + body


async def stay(connection: Connection) -> None:
    """Read, and answer nothing."""
    async for _ in connection:
        pass


async def fill(connection: Connection) -> None:
    """Send until the peer, which does not read, is slow."""
    await until(lambda: not connection.send(SOUND, droppable=True), "slowness")


# --- through and back -------------------------------------------------------------------------------------------------


async def test_text_and_binary_come_and_go_as_they_are() -> None:
    async with site() as there:
        client = await there.connect()
        await client.send_str("größer")
        assert (await client.receive()).data == "größer"
        await client.send_bytes(b"\x00\xff")
        assert (await client.receive()).data == b"\x00\xff"
        connection = await there.came.get()
        assert (connection.received, connection.sent, connection.dropped) == (2, 2, 0)
        assert connection.sent_bytes == len("größer".encode()) + 2
        await client.close(code=4242, message=b"good bye")
        await until(lambda: not connection.open)
        assert (connection.code, connection.cause, connection.by_peer) == (4242, "good bye", True)


async def test_a_connection_that_we_open_has_the_same_shape() -> None:
    async with site() as there:
        async with there.gate.dial(there.session, there.url, kind="bot") as connection:
            assert connection.send("hello")
            assert await connection.receive() == "hello"
            assert connection.send(b"sound")
            assert await connection.receive() == b"sound"
            assert there.gate.facts().open == {"bot": 1, "test": 1}
        assert (connection.code, connection.by_peer) == (1000, False)
        assert not connection.send("more")
        assert await connection.receive() is None
        assert (await there.came.get()).code == 1000


async def test_what_the_far_server_says_at_its_end_is_known() -> None:
    async def leave(connection: Connection) -> None:
        await connection.receive()
        await connection.close(Close.NOT_FOUND)

    async with site(serve=leave) as there, there.gate.dial(there.session, there.url, kind="bot") as connection:
        connection.send("hello")
        assert await connection.receive() is None
        assert (connection.code, connection.cause, connection.by_peer) == (4404, Close.NOT_FOUND.reason, True)


async def test_a_peer_that_vanishes_is_lost() -> None:
    async with site() as there:
        async with bare(there.port):
            connection = await there.came.get()
        await until(lambda: not connection.open)
        assert (connection.code, connection.by_peer) == (1006, True)


async def test_it_can_be_iterated_until_it_ends() -> None:
    heard: list[str | bytes] = []

    async def listen(connection: Connection) -> None:
        heard.extend([message async for message in connection])

    async with site(serve=listen) as there:
        client = await there.connect()
        for number in range(5):
            await client.send_str(str(number))
        await client.close()
        connection = await there.came.get()
        await until(lambda: not connection.open)
    assert heard == ["0", "1", "2", "3", "4"]


# --- the peer breaks a rule -------------------------------------------------------------------------------------------


async def told(client: aiohttp.ClientWebSocketResponse) -> tuple[int, str]:
    """Code and reason with which the server ends it; what comes before is read."""
    async with asyncio.timeout(10):
        while (message := await client.receive()).type is not WSMsgType.CLOSE:
            assert message.type in {WSMsgType.TEXT, WSMsgType.BINARY}, message
        return message.data, message.extra or ""


@pytest.mark.parametrize(("takes", "wrong"), [("text", b"binary"), ("binary", "text")])
async def test_the_wrong_type_ends_it(takes: str, wrong: str | bytes) -> None:
    async with site(takes=takes) as there:
        client = await there.connect()
        await (client.send_str(wrong) if isinstance(wrong, str) else client.send_bytes(wrong))
        assert await told(client) == (1003, f"only {takes} messages are taken here")
        await until(lambda: there.gate.facts().cut == {"type": 1})


async def test_the_right_type_is_taken() -> None:
    async with site(takes="text") as there:
        client = await there.connect()
        await client.send_str("text")
        assert (await client.receive()).data == "text"
        await client.close()


@pytest.mark.parametrize("length", [4097, 1 << 20])
async def test_a_message_that_is_too_long_ends_it_and_the_client_reads_why(length: int) -> None:
    async with site(GateSettings(message_bytes=4096)) as there:
        client = await there.connect()
        await client.send_bytes(bytes(4096))
        assert (await client.receive()).data == bytes(4096)
        await client.send_bytes(bytes(length))
        assert await told(client) == (1009, "the message is too long")
        connection = await there.came.get()
        await client.close()
        await until(lambda: not connection.open)
        assert (connection.code, connection.by_peer) == (1009, False)


async def test_a_message_in_too_many_fragments_is_as_long_as_all_of_them() -> None:
    begin, more = b"\x02\xfe\x04\x00" + b"\0\0\0\0" + bytes(1024), b"\x00\xfe\x04\x00" + b"\0\0\0\0" + bytes(1024)
    async with site(GateSettings(message_bytes=4096)) as there, bare(there.port) as plain:
        await asyncio.get_running_loop().sock_sendall(plain, begin + more * 4)
        assert closing(Close.TOO_LONG) in await read_to_the_end(plain)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\xf1\x80\0\0\0\0", Close.BROKEN_PROTOCOL),  # reserved bits
        (b"\x83\x80\0\0\0\0", Close.BROKEN_PROTOCOL),  # an opcode that does not exist
        (b"\x09\x80\0\0\0\0", Close.BROKEN_PROTOCOL),  # a ping in fragments
        (b"\x81\x82\0\0\0\0\xff\xfe", Close.NOT_UTF8),
    ],
)
async def test_frames_that_are_none(frame: bytes, code: Close) -> None:
    async with site() as there, bare(there.port) as plain:
        await asyncio.get_running_loop().sock_sendall(plain, frame)
        assert closing(code) in await read_to_the_end(plain)
        connection = await there.came.get()
        plain.close()
        await until(lambda: not connection.open)
        assert connection.code == code


async def test_too_many_messages_end_it_and_a_burst_does_not() -> None:
    async with site(GateSettings(messages_per_s=50), serve=stay) as there:
        client = await there.connect()
        connection = await there.came.get()
        for _ in range(90):
            await client.send_str("x")
        await until(lambda: connection.received == 90)
        assert connection.open
        for _ in range(110):
            await client.send_str("x")
        assert await told(client) == (1008, "too many messages")
        await until(lambda: there.gate.facts().cut == {"rate": 1})


async def test_pings_count_as_messages() -> None:
    async with site(GateSettings(messages_per_s=50), serve=stay) as there, bare(there.port) as plain:
        await asyncio.get_running_loop().sock_sendall(plain, b"\x89\x80\0\0\0\0" * 101)
        assert (await read_to_the_end(plain)).endswith(closing(Close.TOO_MANY_MESSAGES))


async def test_pings_of_a_peer_that_does_not_read_are_not_answered_without_bound() -> None:
    settings = GateSettings(queue_bytes=4096, slow_s=60, messages_per_s=100_000)
    pings = (b"\x89\xfd\0\0\0\0" + bytes(125)) * 100
    async with site(settings, serve=stay) as there, bare(there.port, receive_buffer=4096) as plain:
        connection = await there.came.get()
        loop = asyncio.get_running_loop()
        sent = 0
        while not connection.paused or sent < 5000:
            await loop.sock_sendall(plain, pings)
            sent += 100
        await until(lambda: connection._controls == sent)
        assert connection.open
        assert connection.waiting_bytes <= settings.queue_bytes + 2 * 127


@pytest.mark.parametrize("seed", range(20))
async def test_rubbish_ends_one_connection_and_harms_no_other(seed: int) -> None:
    rubbish = random.Random(seed).randbytes(2000)
    async with site(serve=stay) as there:
        other = await there.connect()
        async with bare(there.port) as plain:
            await asyncio.get_running_loop().sock_sendall(plain, rubbish)
            plain.shutdown(socket.SHUT_WR)
            await read_to_the_end(plain)
        await until(lambda: len(there.gate.connections) == 1)
        assert "fault" not in there.gate.facts().cut
        await other.close()


# --- a slow client ----------------------------------------------------------------------------------------------------

SLOW = GateSettings(queue_bytes=4096, slow_s=60)


async def test_a_slow_client_misses_what_may_be_dropped() -> None:
    async with site(SLOW, serve=stay) as there, bare(there.port, receive_buffer=4096):
        connection = await there.came.get()
        await fill(connection)
        assert connection.paused
        assert connection.dropped == 1
        for _ in range(1000):
            assert not connection.send(SOUND, droppable=True)
        assert connection.open
        assert connection.dropped == 1001
        assert connection.waiting_bytes < SLOW.queue_bytes + 2 * len(SOUND)
        assert there.gate.facts().dropped == {"test": 1001}


async def test_a_client_that_reads_again_hears_again() -> None:
    async with site(SLOW, serve=stay) as there, bare(there.port, receive_buffer=4096) as plain:
        connection = await there.came.get()
        await fill(connection)
        loop = asyncio.get_running_loop()
        while connection.paused:
            await loop.sock_recv(plain, 65_536)
        assert connection.send(SOUND, droppable=True)


async def test_what_may_not_be_dropped_waits_up_to_a_bound_then_ends_it() -> None:
    async with site(SLOW, serve=stay) as there, bare(there.port, receive_buffer=4096) as plain:
        connection = await there.came.get()
        most = 0
        while connection.send(SOUND):
            await asyncio.sleep(0)
            most = max(most, connection.waiting_bytes)
        assert SLOW.queue_bytes < most <= 4 * SLOW.queue_bytes + 16
        assert (connection.code, connection.by_peer) == (4429, False)
        assert (await read_to_the_end(plain)).endswith(closing(Close.TOO_SLOW))
        await until(lambda: there.gate.facts().cut == {"slow": 1})


async def test_a_client_that_stays_slow_is_cut() -> None:
    quick = GateSettings(queue_bytes=4096, slow_s=0.1)
    async with site(quick, serve=stay) as there, bare(there.port, receive_buffer=4096):
        connection = await there.came.get()
        while connection.open:
            connection.send(SOUND, droppable=True)
            await asyncio.sleep(0)
        assert connection.code == Close.TOO_SLOW
        await until(lambda: not there.gate.connections)  # the close frame waits in vain; the socket goes all the same


# --- a silent one -----------------------------------------------------------------------------------------------------


async def test_pings_are_answered_and_timed() -> None:
    async with site(QUICK, serve=stay) as there:
        client = await there.connect()
        connection = await there.came.get()
        reading = asyncio.create_task(client.receive())
        await until(lambda: connection.round_trip_ms is not None)
        assert 0 < (connection.round_trip_ms or 0) < 5000
        assert connection.open
        await client.close()
        await reading


async def test_a_peer_that_answers_no_ping_is_cut() -> None:
    async with site(QUICK, serve=stay) as there, bare(there.port) as plain:
        connection = await there.came.get()
        assert (await read_to_the_end(plain)).endswith(closing(Close.SILENT))
        assert (connection.code, connection.by_peer) == (4408, False)
        await until(lambda: there.gate.facts().cut == {"silent": 1})


async def test_a_ping_of_the_peer_is_answered_with_its_payload() -> None:
    async with site(serve=stay) as there, bare(there.port) as plain:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(plain, b"\x89\x83\0\0\0\0abc")
        assert await loop.sock_recv(plain, 5) == b"\x8a\x03abc"


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_closing_from_elsewhere_ends_receive() -> None:
    async with site(serve=stay) as there:
        client = await there.connect()
        connection = await there.came.get()
        connection.close_soon(Close.REPLACED)
        connection.close_soon(Close.OUR_FAULT)  # the first one counts
        assert not connection.send("more")
        assert await told(client) == (4409, Close.REPLACED.reason)
        await until(lambda: not there.gate.connections)
        assert (connection.code, connection.cause) == (4409, Close.REPLACED.reason)


async def test_a_long_reason_is_cut_at_a_letter() -> None:
    async def leave(connection: Connection) -> None:
        await connection.close(4400, "ä" * 100)

    async with site(serve=leave) as there:
        assert await told(await there.connect()) == (4400, "ä" * 61)


@pytest.mark.parametrize(
    ("problem", "code", "reason"),
    [(NotAllowed("the token is over"), 4403, "the token is over"), (ZeroDivisionError(), 1011, "internal error")],
)
async def test_what_a_handler_raises_becomes_a_close_code(problem: Exception, code: int, reason: str) -> None:
    async def fail(_connection: Connection) -> None:
        raise problem

    async with site(serve=fail) as there:
        assert await told(await there.connect()) == (code, reason)


async def test_a_connection_that_is_over_cannot_be_guarded() -> None:
    async with site() as there:
        client = await there.connect()
        transport = client._writer.transport
        transport.abort()
        with pytest.raises(CarrierError):
            Connection(client, GateSettings(), kind="bot")
        await client.close()


async def test_only_one_that_came_to_us_has_a_response() -> None:
    async with site() as there, there.gate.dial(there.session, there.url, kind="bot") as connection:
        with pytest.raises(TypeError):
            _ = connection.response
        assert isinstance((await there.came.get()).response, web.WebSocketResponse)
