"""The client and `sipserver calls`, against a real server with real telephones, and against one that misbehaves."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from typer.testing import CliRunner

from sipserver import client as client_module
from sipserver.cli import keys as keys_cli
from sipserver.client import ApiError, Client
from sipserver.errors import CallerError, InternalError
from tests.api.rest.test_calls import PLAN, a_call, callee, key_of
from tests.fakes.until import until
from tests.harness.phone import Phone
from tests.harness.records import records
from tests.harness.server import ServerProcess

NOBODY = "0198d1f2-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("client")
    settings = {
        "http": {"host": "127.0.0.1", "api_per_s": 500},
        "fleet": {"runtime": str(folder / "run")},
        "webhooks": {"allow_private": True},
    }
    made = ServerProcess(folder, {"acme.yaml": PLAN.replace("say: Good day.", "wait: 1")}, settings)
    yield made.start()
    assert made.stop() == 0


@pytest.fixture(scope="module")
def key(server: ServerProcess) -> str:
    return key_of(server)


def url_of(server: ServerProcess) -> str:
    return f"http://127.0.0.1:{server.http_port}"


async def test_a_call_is_placed_followed_and_ended(server: ServerProcess, key: str) -> None:
    async with callee(server) as (party, uri), Client(url_of(server), key) as client:
        made = await client.create_call(uri, idempotency_key="once", variables={"order": "7"})
        assert (await client.create_call(uri, idempotency_key="once", variables={"order": "7"})).id == made.id
        await party.is_called()
        await party.accepts()
        kinds = []
        async for event in client.follow(made.id):
            kinds.append(event.kind)
            if event.kind == "step.entered" and event.fields["step"] == "echo":
                await client.hangup(made.id)
                party.peer.answer(await party.peer.receive("BYE"), "200 OK")
        assert kinds[0] == "call.started"
        assert kinds[-1] == "call.ended"
        call = await client.call(made.id)
        assert (call.direction, call.end_reason) == ("outbound", "operator_hangup")
        assert [each.id async for each in client.calls(direction="outbound", open=False)] == [made.id]
        assert await client.transcript(made.id) == []
        await client.hangup(made.id)


async def test_a_recording_is_fetched(server: ServerProcess, key: str, tmp_path: Path) -> None:
    call_id = await asyncio.to_thread(a_call, server)
    async with Client(url_of(server), key) as client:
        size = await client.recording(call_id, tmp_path / "call.wav")
        content = await asyncio.to_thread((tmp_path / "call.wav").read_bytes)
        assert (len(content), content[:4]) == (size, b"RIFF")
        assert await client.recording(call_id, tmp_path / "call.wav", number=1) == size
        with pytest.raises(ApiError, match=r"no recording 2 \(404\)"):
            await client.recording(call_id, tmp_path / "none.wav", number=2)
        with pytest.raises(ApiError, match=r"no such call \(404\)"):
            await client.recording(NOBODY, tmp_path / "none.wav")
        assert [path.name for path in await asyncio.to_thread(lambda: list(tmp_path.iterdir()))] == ["call.wav"]


async def test_what_is_wrong_is_told(server: ServerProcess, key: str) -> None:
    async with Client(url_of(server), key) as client:
        with pytest.raises(CallerError, match="ring_s"):
            await client.create_call("1", ring_s=-1)
        with pytest.raises(ApiError, match="nowhere") as refused:
            await client.create_call("sip:1@127.0.0.1:9", flow="nowhere")
        assert refused.value.status == 404
    async with Client(url_of(server), "sips_wrong") as client:
        with pytest.raises(ApiError, match="API key") as refused:
            await client.call(NOBODY)
        assert refused.value.status == 401
    with pytest.raises(InternalError, match="async with"):
        await client.call("x")


@pytest.mark.parametrize("path", ["/", "/api/v1", "/api/v1/", " "])
async def test_the_url_of_the_api_is_taken_too(server: ServerProcess, key: str, path: str) -> None:
    async with Client(url_of(server) + path, f"{key}\n") as client:
        with pytest.raises(ApiError, match=r"no such call \(404\)"):
            await client.call(NOBODY)


@pytest.mark.parametrize(
    "url", ["notaurl", "127.0.0.1:28180", "localhost:8080", "ftp://host", "http://", "http://[", ""]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(CallerError, match="is no URL of a server: write it as http://"):
        Client(url, "sips_x")


@pytest.mark.parametrize("key", ["sips_a\nsips_b", "sips_a\x00", "sips_\u00e4"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(CallerError, match="give the key alone") as refused:
        Client("http://127.0.0.1:1", key)
    assert "sips_" not in str(refused.value)


# --- servers that misbehave -------------------------------------------------------------------------------------------

Answers = Callable[[web.Request], Awaitable[web.StreamResponse]]
CALL = '{"id": "1", "direction": "inbound", "from_uri": "", "to_uri": "", "state": "ended", "started_at": null}'


@asynccontextmanager
async def serving(*answers: Answers) -> AsyncIterator[tuple[str, list[str]]]:
    """A server that answers so, one after the other; its URL and what was asked."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(f"{request.method} {request.path} {request.headers.get('Range', '')}".strip())
        return await answers[min(len(asked), len(answers)) - 1](request)

    app = web.Application()
    app.router.add_route("*", "/{any:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


async def refuses_429(_request: web.Request) -> web.Response:
    return web.json_response({"detail": "slowly"}, status=429, headers={"Retry-After": "0"})


async def refuses_503(_request: web.Request) -> web.Response:
    return web.Response(status=503, text="<html>")


async def refuses_409(_request: web.Request) -> web.Response:
    return web.json_response({"detail": "the first one is under way"}, status=409, headers={"Retry-After": "1"})


async def has_made(_request: web.Request) -> web.Response:
    return web.json_response({"id": "1", "url": "/api/v1/calls/1"})


async def answers(_request: web.Request) -> web.Response:
    return web.Response(text=CALL, content_type="application/json")


async def accepts(_request: web.Request) -> web.Response:
    return web.json_response({"id": "1"}, status=202)


async def breaks(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_pause_s", lambda attempt: 0.0)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("trouble", [refuses_429, refuses_503, breaks])
async def test_a_question_is_asked_again(trouble: Answers) -> None:
    async with serving(trouble, trouble, answers) as (url, asked), Client(url, "k") as client:
        assert (await client.call("1")).id == "1"
        assert len(asked) == 3
    async with serving(trouble) as (url, asked), Client(url, "k", attempts=2) as client:
        with pytest.raises((ApiError, InternalError)):
            await client.call("1")
        assert len(asked) >= 2, "aiohttp itself asks again when a connection broke"


@pytest.mark.usefixtures("at_once")
async def test_what_may_have_been_done_is_not_asked_for_again() -> None:
    for trouble in (refuses_503, breaks):
        async with serving(trouble, accepts) as (url, asked), Client(url, "k") as client:
            with pytest.raises((ApiError, InternalError)):
                await client.say("1", "Hello.")
            assert len(asked) == 1
    async with serving(refuses_429, accepts) as (url, asked), Client(url, "k") as client:
        await client.say("1", "Hello.")
        assert len(asked) == 2


@pytest.mark.usefixtures("at_once")
async def test_an_order_whose_first_sending_is_under_way_is_sent_again() -> None:
    async with serving(breaks, refuses_409, refuses_503, has_made) as (url, asked), Client(url, "k") as client:
        assert (await client.create_call("1")).id == "1"
        assert len(asked) == 4
    async with serving(refuses_409, accepts) as (url, asked), Client(url, "k") as client:
        with pytest.raises(ApiError, match="under way"):
            await client.say("1", "Hello.")
        assert len(asked) == 1


@pytest.mark.usefixtures("at_once")
async def test_a_recording_is_taken_up_where_it_broke(tmp_path: Path) -> None:
    whole = bytes(range(256)) * 4000

    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(whole))})
        await response.prepare(request)
        await response.write(whole[: len(whole) // 2])
        assert request.transport is not None
        request.transport.close()
        return response

    async def rest(request: web.Request) -> web.Response:
        begin = int(request.headers["Range"].removeprefix("bytes=").rstrip("-"))
        return web.Response(status=206, body=whole[begin:])

    async with serving(half, rest) as (url, asked), Client(url, "k") as client:
        assert await client.recording("1", tmp_path / "x.wav") == len(whole)
        assert len(asked) == 2
    assert await asyncio.to_thread((tmp_path / "x.wav").read_bytes) == whole


async def test_something_else_that_answers_is_named() -> None:
    async def page(_request: web.Request) -> web.Response:
        return web.Response(text="<html>")

    async with serving(page) as (url, _), Client(url, "k") as client:
        with pytest.raises(InternalError, match="no answer of a sipserver"):
            await client.call("1")


# --- on the terminal --------------------------------------------------------------------------------------------------


def calls(server: ServerProcess, *words: str, env: dict[str, str] | None = None) -> str:
    """What `sipserver calls` prints."""
    line = command(server, words, remote=env is not None)
    return subprocess.run(line, env=env, text=True, capture_output=True, check=True).stdout


def command(server: ServerProcess, words: Sequence[str], *, remote: bool) -> list[str]:
    settings = () if remote else ("--config", str(server.settings_file))
    return [sys.executable, "-m", "sipserver", "calls", *words, *settings]


def by_rest(server: ServerProcess, key: str) -> dict[str, str]:
    return {"SIPSERVER_URL": url_of(server), "SIPSERVER_KEY": key, "COLUMNS": "100"}


@pytest.mark.parametrize("remote", [False, True], ids=["settings", "REST"])
async def test_calls_are_shown_followed_and_ended(server: ServerProcess, key: str, remote: bool) -> None:
    env = by_rest(server, key) if remote else None
    with Phone(server.sip_port) as phone:
        assert (await asyncio.to_thread(phone.invite, "echo")).code == 200
        await until(lambda: bool(records(server.database, phone.call_id)), "the record")
        call_id = records(server.database, phone.call_id)[0].call_id
        end = call_id[-12:]
        listed = await asyncio.to_thread(calls, server, "list", env=env)
        assert (end in listed, "tenant" in listed) == (True, not remote)
        following = await asyncio.create_subprocess_exec(
            *command(server, ("tail", end), remote=remote), env=env, stdout=asyncio.subprocess.PIPE
        )
        assert following.stdout is not None
        assert b"inbound" in await following.stdout.readline()
        assert call_id in await asyncio.to_thread(calls, server, "hangup", end, env=env)
        told = (await following.communicate())[0].decode()
        assert following.returncode == 0
        assert "operator_hangup" in told
        assert phone.ended.wait(10)
    shown = await asyncio.to_thread(calls, server, "show", end, env=env)
    assert "operator_hangup" in shown
    assert shown.splitlines()[0].split()[2] == ("inbound" if remote else "acme")


async def test_a_running_call_is_handed_over(server: ServerProcess, key: str) -> None:
    async with callee(server) as (party, uri):
        with Phone(server.sip_port) as phone:
            assert (await asyncio.to_thread(phone.invite, "echo")).code == 200
            await until(lambda: bool(records(server.database, phone.call_id)), "the record")
            call_id = records(server.database, phone.call_id)[0].call_id
            await until(
                lambda: "echo" in str(records(server.database, phone.call_id)[0].of("step.entered")), "the echo"
            )
            live = await asyncio.to_thread(calls, server, "live", "--json")
            assert call_id in live
            said = await asyncio.to_thread(calls, server, "transfer", call_id[-12:], uri, env=by_rest(server, key))
            assert call_id in said
            invite = await party.is_called()
            party.peer.answer(invite, "486 Busy Here")
            await until(lambda: bool(records(server.database, phone.call_id)[0].of("transfer.ended")), "the outcome")
            await asyncio.to_thread(phone.bye)


def test_without_a_key_it_says_what_to_do(server: ServerProcess) -> None:
    words = command(server, ("list", "--url", url_of(server)), remote=True)
    done = subprocess.run(words, env={}, text=True, capture_output=True, check=False)
    assert done.returncode == 2
    assert "SIPSERVER_KEY" in done.stderr


async def test_webhooks_are_heard_on_this_machine(server: ServerProcess, key: str) -> None:
    words = [
        sys.executable,
        "-m",
        "sipserver",
        "webhooks",
        "listen",
        "--kinds",
        "call.started",
        "--kinds",
        "call.ended",
    ]
    listening = await asyncio.create_subprocess_exec(
        *words, env=by_rest(server, key), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert listening.stdout is not None
    assert listening.stderr is not None
    assert b"listening at http://127.0.0.1:" in await listening.stderr.readline()
    async with Client(url_of(server), key) as client:
        (made,) = await client.webhooks()
        assert made.kinds == ["call.started", "call.ended"]
        call_id = await asyncio.to_thread(a_call, server)
        told = [(await listening.stdout.readline()).decode().split() for _ in range(2)]
        assert [line[:2] for line in told] == [[call_id[-12:], "call.started"], [call_id[-12:], "call.ended"]]
        async with aiohttp.ClientSession() as other, other.post(made.url, data=b"{}") as answer:
            assert answer.status == 400
        listening.send_signal(signal.SIGINT)
        _, said = await listening.communicate()
        assert (listening.returncode, await client.webhooks()) == (0, [])
        assert b"1 messages had a wrong signature" in said


async def test_events_are_heard_live_and_from_a_cursor_on(server: ServerProcess, key: str) -> None:
    async with Client(url_of(server), key) as client:
        live = asyncio.Event()
        first = client.live(kinds=["call.started", "call.ended"], on_live=live.set)
        coming = asyncio.ensure_future(anext(first))
        await asyncio.wait_for(live.wait(), 20)
        one = await asyncio.to_thread(a_call, server)
        begun = await asyncio.wait_for(coming, 20)
        assert (begun.call_id, begun.kind, begun.seq) == (one, "call.started", 0)
        await first.aclose()  # type: ignore[attr-defined]
        two = await asyncio.to_thread(a_call, server)
        later = client.live(kinds=["call.started", "call.ended"], after=begun.cursor)
        told = [await asyncio.wait_for(anext(later), 20) for _ in range(3)]
        assert [(each.call_id, each.kind) for each in told] == [
            (one, "call.ended"),
            (two, "call.started"),
            (two, "call.ended"),
        ]
        await later.aclose()  # type: ignore[attr-defined]
        with pytest.raises(ApiError, match="cursor"):
            await anext(client.live(after="nonsense"))


async def test_a_key_that_is_revoked_ends_what_is_heard(server: ServerProcess) -> None:
    text = await asyncio.to_thread(key_of, server)
    async with Client(url_of(server), text) as client:
        live = asyncio.Event()
        coming = asyncio.ensure_future(anext(client.live(on_live=live.set)))
        await asyncio.wait_for(live.wait(), 20)
        words = ["revoke", text, "--config", str(server.settings_file)]
        assert (await asyncio.to_thread(CliRunner().invoke, keys_cli.app, words)).exit_code == 0
        with pytest.raises(ApiError, match="key is over"):
            await asyncio.wait_for(coming, 20)


@pytest.mark.parametrize("remote", [False, True], ids=["settings", "REST"])
async def test_what_happens_in_all_calls_is_shown(server: ServerProcess, key: str, remote: bool) -> None:
    env = by_rest(server, key) if remote else None
    following = await asyncio.create_subprocess_exec(
        *command(server, ("tail",), remote=remote), env=env, stdout=asyncio.subprocess.PIPE
    )
    assert following.stdout is not None
    shown = asyncio.ensure_future(following.stdout.readline())
    while not shown.done():  # it does not say when it has begun
        call_id = await asyncio.to_thread(a_call, server)
        await asyncio.wait({shown}, timeout=2)
    lines = [shown.result()]
    while b"ended: caller_hangup" not in lines[-1]:
        lines.append(await asyncio.wait_for(following.stdout.readline(), 20))
    assert call_id[-12:].encode() in b"".join(lines)
    following.terminate()
    await following.wait()
