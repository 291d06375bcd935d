"""Bad input at a real server: SQL and header injection, paths upwards, oversize bodies, slow clients."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from sipserver.api.rest.operations import MAX_BODY_BYTES
from sipserver.tenants.keys import ALL
from tests.api.rest.test_calls import OTHER, PLAN, a_call, asking, get, key_of
from tests.api.rest.test_events import following
from tests.api.rest.test_users import BODIES, ID
from tests.harness.records import execute, records
from tests.harness.server import ServerProcess

SQL = (
    "' OR '1'='1",
    "1; DROP TABLE calls; --",
    "x') UNION SELECT id FROM api_keys --",
    "%' AND pg_sleep(9) --",
    "\\';--",
)
INJECTED = "X-Injected"
BREAKS = ("\r\n", "\n", "\r", "\u0000")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, store: dict[str, Any]) -> Iterator[ServerProcess]:
    made = ServerProcess(
        tmp_path_factory.mktemp("bad"),
        {"acme.yaml": PLAN, "zenith.yaml": OTHER},
        {"http": {"host": "127.0.0.1", "api_per_s": 5000}} | store,
    )
    yield made.start()
    assert made.stop() == 0
    assert "Traceback" not in made.log()
    assert '"level": "error"' not in made.log()


@pytest.fixture(scope="module")
def key(server: ServerProcess) -> str:
    return key_of(server, "acme", *ALL)


@pytest.fixture(scope="module")
def call_id(server: ServerProcess) -> str:
    return a_call(server)


async def operations(client: aiohttp.ClientSession) -> list[tuple[str, str, dict[str, Any]]]:
    """Method, path and what the document says of each but those that end the key that asks or the session."""
    document = await get(client, "/openapi.json")
    return [
        (method.upper(), path, said)
        for path, methods in document["paths"].items()
        for method, said in methods.items()
        if said["operationId"] not in ("deleteKey", "rotateKey", "login", "loginByProvider", "comeFromProvider")
    ]


# --- SQL --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", SQL)
async def test_sql_injection_in_queries_and_paths_finds_and_breaks_nothing(
    server: ServerProcess, key: str, call_id: str, attack: str
) -> None:
    tried = 0
    async with asking(server, key) as client:
        for method, path, said in await operations(client):
            filled = re.sub(r"{\w+}", quote(attack, safe=""), path)
            names = [each["name"] for each in said["parameters"] if each["in"] == "query"]
            for query in [{name: attack} for name in names] or [{}]:
                if filled == path and not query:
                    continue
                tried += 1
                body = BODIES.get(path.rpartition("/")[2])
                async with client.request(
                    method, _as_is(filled), params=query, json=body, headers={"If-Match": "*"}
                ) as answer:
                    assert answer.status in (200, 400, 403, 404, 422), (method, path, query, await answer.text())
                    if path == "/api/v1/calls" and answer.status == 200:
                        assert (await answer.json())["calls"] == []
        assert tried > 40
        assert call_id in {each["id"] for each in (await get(client, "/calls"))["calls"]}


def _as_is(path: str) -> Any:
    from yarl import URL

    return URL(path, encoded=True)


# --- header injection -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line_end", BREAKS, ids=["CRLF", "LF", "CR", "NUL"])
async def test_header_injection_into_sip_is_refused(server: ServerProcess, key: str, line_end: str) -> None:
    sent = f"x{line_end}{INJECTED}: yes"
    async with asking(server, key) as client:
        for wrong in (
            {"to": f"sip:1@127.0.0.1:9{line_end}{INJECTED}: yes"},
            {"from": sent},
            {"from_display": sent},
            {"headers": {"X-Good": sent}},
            {"headers": {sent: "value"}},
        ):
            async with client.post("/api/v1/calls/create", json={"to": "sip:1@127.0.0.1:9", **wrong}) as answer:
                assert answer.status == 422, wrong


@pytest.mark.parametrize("path", ["/api/v1/agents/{}", "/api/v1/dialplans/{}", "/api/v1/calls?cursor={}", "/{}"])
async def test_header_injection_into_answers_adds_no_line(server: ServerProcess, key: str, path: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
    target = path.format(f"a%0d%0a{INJECTED}:%20yes%0d%0a%0d%0abody")
    writer.write(
        f"GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n".encode()
    )
    head, _, _ = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 ", b"HTTP/1.1 422 "))
    assert not [line for line in head.split(b"\r\n") if line.lower().startswith(INJECTED.lower().encode())]


# --- paths upwards ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("up", ["..", "%2e%2e", "..%2f..%2f", "%252e%252e", "..%5c..", "/etc/passwd%00"])
async def test_path_traversal_in_the_url_of_a_recording_finds_nothing(server: ServerProcess, key: str, up: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
    path = f"/api/v1/calls/{up}/{up}/{up}/etc/passwd/recording"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    assert answer.split(b" ", 2)[1] in (b"400", b"404")
    assert b"root:" not in answer


@pytest.mark.parametrize("way", ["upwards", "link", "elsewhere", "folder"])
async def test_path_traversal_in_the_record_of_a_recording_finds_nothing(
    server: ServerProcess, key: str, way: str
) -> None:
    """A record that somebody has tampered with opens no other file."""
    call_id = await asyncio.to_thread(a_call, server)
    recordings, secret = server.folder / "recordings", server.folder / "secret.wav"
    secret.write_bytes(b"RIFF secret")
    link = recordings / "link.wav"
    if not link.is_symlink():
        link.symlink_to(secret)
    paths = {"upwards": recordings / ".." / secret.name, "link": link, "elsewhere": secret, "folder": recordings}
    statement = f"UPDATE calls SET recording_path = '{paths[way]}' WHERE id = '{call_id}'"
    await asyncio.to_thread(execute, server.store, statement)
    async with asking(server, key) as client:
        assert "secret" not in str(await get(client, f"/calls/{call_id}/recording", 404))


# --- oversize ---------------------------------------------------------------------------------------------------------


async def pieces(total: int) -> AsyncIterator[bytes]:
    for _ in range(0, total, 8192):
        yield b" " * 8192


async def test_oversize_bodies_are_refused_by_every_operation(server: ServerProcess, key: str) -> None:
    asked = 0
    async with asking(server, key) as client:
        for method, path, said in await operations(client):
            takes = said.get("requestBody", {}).get("content", {})
            if not takes or "session" in str(said.get("security")):
                continue
            filled = re.sub(r"{\w+}", ID, path.replace("{name}", "acme").replace("{user}", "0" * 32))
            most = 1024 * 1024 if "application/json" not in takes else MAX_BODY_BYTES
            for body in (b" " * (most + 1), pieces(2 * most)):
                asked += 1
                headers = {"Content-Type": next(iter(takes)), "If-Match": "*"}
                async with client.request(method, filled, data=body, headers=headers) as answer:
                    assert answer.status == 413, (method, path, answer.status, await answer.text())
    assert asked > 30


@pytest.mark.parametrize(
    "body",
    [b"[" * 60_000, b'{"a":' * 10_000, b'{"to": "\xff\xfe"}', b'{"to": 1' + b"0" * 50_000 + b"}", b'{"ring_s": 1e999}'],
    ids=["deep list", "deep object", "no UTF-8", "long number", "infinite"],
)
async def test_bodies_that_no_parser_likes_are_refused(server: ServerProcess, key: str, body: bytes) -> None:
    async with asking(server, key) as client, client.post("/api/v1/calls/create", data=body) as answer:
        assert answer.status == 422


@pytest.mark.parametrize(
    "wrong", [{"ring_s": True}, {"ring_s": "30"}, {"detect_answerer": 1}, {"detect_answerer": "yes"}, {"to": 5}]
)
async def test_a_value_of_another_type_is_refused(server: ServerProcess, key: str, wrong: dict[str, Any]) -> None:
    body = {"to": "sip:1@127.0.0.1:9", **wrong}
    async with asking(server, key) as client, client.post("/api/v1/calls/create", json=body) as answer:
        assert answer.status == 422
        (mistake,) = (await answer.json())["errors"]
        assert mistake["where"] == f"body.{next(iter(wrong))}"


async def test_a_whole_number_may_be_written_with_a_point(server: ServerProcess, key: str) -> None:
    async with asking(server, key) as client:
        for number, status in ((999.0, 404), (999.5, 422), (True, 422), ("999", 422)):
            url, body = "/api/v1/dialplans/acme/rollback", {"version": number}
            async with client.post(url, json=body, headers={"If-Match": "*"}) as answer:
                assert answer.status == status, await answer.text()


# --- slow clients -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def half_sent(server: ServerProcess, count: int, head: str) -> AsyncIterator[list[asyncio.StreamWriter]]:
    """So many connections that have begun a request and go on with nothing."""
    async with AsyncExitStack() as stack:
        writers = []
        for _ in range(count):
            _, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
            stack.callback(writer.close)
            writer.write(head.encode())
            await writer.drain()
            writers.append(writer)
        yield writers


async def test_slowloris_at_rest_keeps_nobody_out(server: ServerProcess, key: str) -> None:
    head = f"POST /api/v1/calls/create HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
    heads = (f"{head}X-Slow: ", f"{head}Content-Length: 900\r\n\r\n{{")
    async with AsyncExitStack() as stack, asking(server, key) as client:
        writers = [w for head in heads for w in await stack.enter_async_context(half_sent(server, 60, head))]
        for letter in "abc":
            for writer in writers:
                writer.write(letter.encode())
            async with asyncio.timeout(5):
                await get(client, "/calls")
        assert await asyncio.to_thread(a_call, server)


async def test_slowloris_at_the_event_socket_keeps_nobody_out(server: ServerProcess, key: str) -> None:
    """Half of them never end their handshake, the others never read what they hear."""
    head = f"GET /ws/events/acme HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
    shake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    whole = f"{head}{shake}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    async with half_sent(server, 20, head), half_sent(server, 5, whole), following(server, key) as follower:
        call_id = await asyncio.to_thread(a_call, server)
        await follower.until("call.ended", call_id)
    assert [each for each in records(server.store) if each.call_id == call_id]
