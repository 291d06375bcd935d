"""Calls by REST against a real server, with real telephones."""

from __future__ import annotations

import asyncio
import json
import socket
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import jsonschema
import pytest
from typer.testing import CliRunner

from sipserver.cli import keys as keys_cli
from tests.fakes.party import Party, parties_at
from tests.fakes.until import eventually, until, wait_until
from tests.harness.phone import Phone, tone
from tests.harness.records import ended, execute, records
from tests.harness.server import ServerProcess

PLAN = """
tenant: acme
targets: ["*", "*@127.0.0.1:*"]
flows:
  main: [answer, {record: {stereo: true}}, {echo: {max_s: 60}}]
  called: [{say: Good day.}, {echo: {max_s: 60}}]
routes:
  - {match: {to: echo}, flow: main}
  - {match: {direction: outbound}, flow: called}
"""
OTHER = """
tenant: zenith
flows:
  main: [answer, {echo: {max_s: 60}}]
routes:
  - {match: {to: zenith}, flow: main}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, store: dict[str, Any]) -> Iterator[ServerProcess]:
    tts = {"espeak": {"vendor": "espeak", "processes": 1}}
    made = ServerProcess(
        tmp_path_factory.mktemp("rest"),
        {"acme.yaml": PLAN, "zenith.yaml": OTHER},
        {"speech": {"tts": tts}, "http": {"host": "127.0.0.1", "api_per_s": 500}} | store,
    )
    yield made.start()
    assert made.stop() == 0
    assert "Traceback" not in made.log()


def key_of(server: ServerProcess, tenant: str = "acme", *scopes: str) -> str:
    words = ["create", "--tenant", tenant, "--name", "tests", "--config", str(server.settings_file)]
    for scope in scopes:
        words += ["--scope", scope]
    made = CliRunner().invoke(keys_cli.app, words)
    assert made.exit_code == 0, made.output
    return made.output.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def key(server: ServerProcess) -> str:
    return key_of(server)


@asynccontextmanager
async def asking(server: ServerProcess, key: str) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{server.http_port}", headers=headers) as client:
        yield client


async def get(client: aiohttp.ClientSession, path: str, status: int = 200) -> Any:
    async with client.get(f"/api/v1{path}") as answer:
        assert answer.status == status, await answer.text()
        return await answer.json()


def a_call(server: ServerProcess, to: str = "echo") -> str:
    """A call that heard its echo, what comes before that in its flow included, and is over; its id."""
    with Phone(server.sip_port) as phone:
        assert phone.invite(to).code == 200
        phone.start_media()
        phone.say(tone(500))
        wait_until(lambda: phone.heard().any(), "the echo")
        phone.bye()
        return ended(server.store, phone.call_id)[0].call_id


# --- calls that were --------------------------------------------------------------------------------------------------


async def test_a_call_that_is_over_is_read(server: ServerProcess, key: str) -> None:
    call_id = await asyncio.to_thread(a_call, server)
    async with asking(server, key) as client:
        call = await get(client, f"/calls/{call_id}")
        assert call == await get(client, f"/calls/{call_id}/status")
        assert (call["direction"], call["state"], call["end_reason"]) == ("inbound", "ended", "caller_hangup")
        assert call["recording"] == "complete"
        told = await get(client, f"/calls/{call_id}/events?limit=3")
        assert [event["seq"] for event in told["events"]] == [0, 1, 2]
        assert told["more"]
        rest = await get(client, f"/calls/{call_id}/events?after=2")
        assert rest["events"][-1]["kind"] == "call.ended"
        assert not rest["more"]
        assert (await get(client, f"/calls/{call_id}/transcript"))["lines"] == []


async def test_recordings_are_fetched_whole_and_in_parts(server: ServerProcess, key: str) -> None:
    call_id = await asyncio.to_thread(a_call, server)
    async with asking(server, key) as client:
        path = f"/api/v1/calls/{call_id}/recording"
        async with client.get(path) as answer:
            whole = await answer.read()
            assert (answer.status, whole[:4]) == (200, b"RIFF")
            assert answer.headers["Content-Type"] == "audio/x-wav"
            assert f'filename="{call_id}.wav"' in answer.headers["Content-Disposition"]
        async with client.get(path, headers={"Range": "bytes=10-19"}) as answer:
            assert (answer.status, await answer.read()) == (206, whole[10:20])
        async with client.get(path, headers={"Range": f"bytes={len(whole)}-"}) as answer:
            assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{len(whole)}")
            assert (await answer.json(content_type="application/problem+json"))["status"] == 416
        async with client.get(path, headers={"Range": "bytes=9-3"}) as answer:
            assert answer.status == 416
        for ignored in ({"Range": "lines=1-2"}, {"Range": "bytes=0-9", "If-Range": '"another"'}):
            async with client.get(path, headers=ignored) as answer:
                assert (answer.status, await answer.read()) == (200, whole)


async def test_every_answer_says_what_is_left_of_the_rate(server: ServerProcess, key: str) -> None:
    async with asking(server, key) as client:
        for path, status in (
            ("/calls", 200),
            ("/calls/01a224d2-6772-7d61-9c91-a3dd7a2e5a49", 404),
            ("/calls?x=1", 422),
        ):
            async with client.get(f"/api/v1{path}") as answer:
                assert answer.status == status
                assert int(answer.headers["RateLimit-Remaining"]) < int(answer.headers["RateLimit-Limit"])


async def test_what_is_outside_the_recordings_is_not_given_away(server: ServerProcess, key: str) -> None:
    call_id = await asyncio.to_thread(a_call, server)
    await asyncio.to_thread(
        execute, server.store, f"UPDATE calls SET recording_path = '/etc/hostname' WHERE id = '{call_id}'"
    )
    async with asking(server, key) as client:
        refusal = await get(client, f"/calls/{call_id}/recording", 404)
        assert "not on this machine" in refusal["detail"]


async def test_calls_are_listed_in_pages_and_by_conditions(server: ServerProcess, key: str) -> None:
    made = [await asyncio.to_thread(a_call, server) for _ in range(3)]
    async with asking(server, key) as client:
        found, cursor = [], ""
        while True:
            page = await get(client, f"/calls?limit=2{f'&cursor={cursor}' if cursor else ''}")
            found += [call["id"] for call in page["calls"]]
            if not (cursor := page["next"]):
                break
        assert found[:3] == made[::-1]
        assert len(found) == len(set(found))
        for query, count in (
            ("to=echo", len(found)),
            ("to=ech", 0),
            ("to=%25", 0),
            ("direction=inbound", len(found)),
            ("direction=outbound", 0),
            ("open=true", 0),
            ("open=false", len(found)),
            ("end_reason=caller_hangup", len(found)),
            ("end_reason=busy", 0),
            ("until=2020-01-01T00:00:00Z", 0),
            ("since=2020-01-01T00:00:00", len(found)),
        ):
            page = await get(client, f"/calls?limit=500&{query}")
            assert len(page["calls"]) == count, query


# --- calls that we place ----------------------------------------------------------------------------------------------


async def create(client: aiohttp.ClientSession, status: int = 201, key: str = "", **body: Any) -> Any:
    headers = {"Idempotency-Key": key} if key else {}
    async with client.post("/api/v1/calls/create", json=body, headers=headers) as answer:
        assert answer.status == status, await answer.text()
        told = await answer.json()
        if status < 300:
            assert answer.headers["Location"] == told["url"]
        return told


async def until_state(client: aiohttp.ClientSession, call_id: str, state: str) -> Any:
    return await eventually(lambda: get(client, f"/calls/{call_id}"), lambda call: bool(call["state"] == state), state)


@asynccontextmanager
async def callee(server: ServerProcess) -> AsyncIterator[tuple[Party, str]]:
    """A telephone, and where it is called."""
    async with parties_at(server.sip_port, "callee") as (party,):
        yield party, f"sip:200@127.0.0.1:{party.peer.port}"


async def test_a_call_is_placed_followed_and_ended(server: ServerProcess, key: str) -> None:
    async with callee(server) as (party, uri), asking(server, key) as client:
        made = await create(client, to=uri, from_display="Acme", variables={"order": "7"})
        assert "Acme" in await party.is_called()
        await party.accepts()
        await until_state(client, made["id"], "answered")
        async with client.delete(made["url"]) as answer:
            assert answer.status == 204
        party.peer.answer(await party.peer.receive("BYE"), "200 OK")
        call = await until_state(client, made["id"], "ended")
        assert (call["direction"], call["end_reason"]) == ("outbound", "operator_hangup")
        async with client.delete(made["url"]) as answer:
            assert answer.status == 204, "it is over already"


async def test_what_the_server_says_stands_in_the_transcript(server: ServerProcess, key: str) -> None:
    async with callee(server) as (party, uri), asking(server, key) as client:
        made = await create(client, to=uri)
        await party.is_called()
        await party.accepts()
        told = await eventually(
            lambda: get(client, f"/calls/{made['id']}/transcript"), lambda told: bool(told["lines"])
        )
        lines = told["lines"]
        assert (lines[0]["who"], lines[0]["text"]) == ("server", "Good day.")
        async with client.delete(made["url"]) as answer:
            assert answer.status == 204
        party.peer.answer(await party.peer.receive("BYE"), "200 OK")


async def post(client: aiohttp.ClientSession, path: str, status: int, **body: Any) -> Any:
    async with client.post(path, json=body) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json()


async def kinds_of(client: aiohttp.ClientSession, call_id: str, kind: str) -> list[dict[str, Any]]:
    told = await get(client, f"/calls/{call_id}/events")
    return [event["fields"] for event in told["events"] if event["kind"] == kind]


async def test_a_call_that_runs_is_told_to_say_something_and_goes_on(server: ServerProcess, key: str) -> None:
    with Phone(server.sip_port) as phone:
        assert (await asyncio.to_thread(phone.invite, "echo")).code == 200
        phone.start_media()
        await until(lambda: bool(records(server.store, phone.call_id)), "the record")
        call_id = records(server.store, phone.call_id)[0].call_id
        async with asking(server, key) as client:
            await post(client, f"/api/v1/calls/{call_id}/say", 202, text="One moment please.")
            spoken = await eventually(lambda: kinds_of(client, call_id, "tts.spoken"), bool)
            assert spoken[0]["heard"] == "One moment please."
            left = await eventually(
                lambda: kinds_of(client, call_id, "step.left"), lambda left: left[-1]["flow"] == "(errand)"
            )
            assert [(each["step"], each["outcome"]) for each in left][-2:] == [("echo", "cancelled"), ("say", "done")]
            entered = await eventually(lambda: kinds_of(client, call_id, "step.entered"), lambda each: len(each) >= 5)
            assert [each["step"] for each in entered] == ["answer", "record", "echo", "say", "echo"]
            began = len(phone.received)
            phone.say(tone(600))
            await until(lambda: any(packet.level > 3000 for packet in phone.received[began:]), "the echo")
            refusal = await post(client, f"/api/v1/calls/{call_id}/say", 422, text="")
            assert refusal["errors"][0]["where"] == "body.text"
            await asyncio.to_thread(phone.bye)
            await until_state(client, call_id, "ended")
            assert "over" in (await post(client, f"/api/v1/calls/{call_id}/say", 409, text="Too late."))["detail"]


@pytest.mark.parametrize("answer", ["accepts", "is busy"])
async def test_a_call_that_runs_is_handed_over(server: ServerProcess, key: str, answer: str) -> None:
    async with callee(server) as (party, uri):
        phone = Phone(server.sip_port)
        try:
            assert (await asyncio.to_thread(phone.invite, "echo")).code == 200
            phone.start_media()
            await until(lambda: bool(records(server.store, phone.call_id)), "the record")
            call_id = records(server.store, phone.call_id)[0].call_id
            async with asking(server, key) as client:
                await post(client, f"/api/v1/calls/{call_id}/transfer", 202, to=uri, ring_s=20)
                invite = await party.is_called()
                assert "two" not in invite
                await post(client, f"/api/v1/calls/{call_id}/transfer", 409, to=uri)
                if answer == "accepts":
                    await party.accepts()
                    await eventually(lambda: kinds_of(client, call_id, "bridge.started"), bool)
                    outcome = "answered"
                    await asyncio.to_thread(phone.bye)
                    party.peer.answer(await party.peer.receive("BYE"), "200 OK")
                else:
                    party.peer.answer(invite, "486 Busy Here")
                    outcome = "busy"
                ended_as = await eventually(lambda: kinds_of(client, call_id, "transfer.ended"), bool)
                assert ended_as[0]["outcome"] == outcome
                if answer == "is busy":
                    entered = await eventually(
                        lambda: kinds_of(client, call_id, "step.entered"), lambda each: len(each) >= 5
                    )
                    assert entered[-1]["step"] == "echo", "the caller is not lost"
                    assert not phone.ended.is_set()
                    await asyncio.to_thread(phone.bye)
                await until_state(client, call_id, "ended")
        finally:
            phone.close()


async def test_targets_of_the_tenant_bind_programs_too(server: ServerProcess) -> None:
    theirs = await asyncio.to_thread(key_of, server, "zenith")
    with Phone(server.sip_port) as phone:
        assert (await asyncio.to_thread(phone.invite, "zenith")).code == 200
        await until(lambda: bool(records(server.store, phone.call_id)), "the record")
        call_id = records(server.store, phone.call_id)[0].call_id
        async with asking(server, theirs) as client:
            refusal = await post(client, f"/api/v1/calls/{call_id}/transfer", 403, to="sip:200@127.0.0.1:9")
            assert "targets" in refusal["detail"]
            assert not [left for left in await kinds_of(client, call_id, "step.left") if left["flow"] == "(errand)"]
            refusal = await post(client, f"/api/v1/calls/{call_id}/transfer", 400, to="1", mode="warm")
            assert "announce" in refusal["detail"]
        await asyncio.to_thread(phone.bye)


async def test_a_call_goes_nowhere_but_to_the_targets_whatever_flow_is_named(server: ServerProcess, key: str) -> None:
    theirs = await asyncio.to_thread(key_of, server, "zenith")  # whose dialplan calls nobody
    inner, number = "sip:200@192.0.2.66:80", "+19005550100"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        nobody.settimeout(0.5)
        local = f"sip:200@127.0.0.1:{nobody.getsockname()[1]}"
        before = len(await asyncio.to_thread(records, server.store))
        for asking_key, to, flow in (
            (key, inner, ""),
            (key, inner, "called"),
            (theirs, local, "main"),
            (theirs, number, "main"),
        ):
            async with asking(server, asking_key) as client:
                refusal = await create(client, 403, to=to, flow=flow)
                assert "`targets`" in refusal["detail"]
        assert len(await asyncio.to_thread(records, server.store)) == before
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(nobody.recv, 4096)


async def test_a_request_that_is_sent_again_places_one_call(server: ServerProcess, key: str) -> None:
    async with callee(server) as (party, uri), asking(server, key) as client:
        one = await create(client, to=uri, key="order-7")
        again = await create(client, 200, to=uri, key="order-7")
        assert again == one
        await party.is_called()
        await party.accepts()
        async with client.delete(one["url"]) as answer:
            assert answer.status == 204
        party.peer.answer(await party.peer.receive("BYE"), "200 OK")
        await until_state(client, one["id"], "ended")
        assert await create(client, 200, to=uri, key="order-7") == one


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "body.to"),
        ({"to": ""}, "body.to"),
        ({"to": "1", "flw": "x"}, "body.flw"),
        ({"to": "1", "ring_s": -1}, "body.ring_s"),
        ({"to": "1\r\nX: y"}, "body.to"),
        ({"to": "1", "headers": {"Via": "x\r\ny"}}, "body.headers.Via"),
        ({"to": "1", "variables": []}, "body.variables"),
    ],
)
async def test_a_body_that_is_wrong_is_told_where(
    server: ServerProcess, key: str, body: dict[str, Any], where: str
) -> None:
    async with asking(server, key) as client:
        refusal = await create(client, 422, **body)
    assert [each["where"] for each in refusal["errors"]] == [where]


# --- what is refused --------------------------------------------------------------------------------------------------


async def test_refusals_are_problem_documents(server: ServerProcess, key: str) -> None:
    async with asking(server, key) as client:
        for method, path, status in (
            ("GET", "/calls/nonsense", 404),
            ("GET", f"/calls/{uuid.uuid4()}", 404),
            ("GET", "/nothing", 404),
            ("PUT", "/calls", 405),
            ("GET", "/calls?limit=0", 422),
            ("GET", "/calls?limit=1&limit=2", 422),
            ("GET", "/calls/create", 405),
            ("GET", "/calls?cursor=!!", 422),
            ("GET", "/calls?since=0.5", 422),
            ("GET", "/calls?cursor=AAAA", 400),
            ("GET", "/calls?colour=red", 422),
            ("GET", "/calls?since=yesterday", 422),
            ("GET", "/calls?since=9999-12-31T23:59:59-14:00", 422),
            ("GET", "/calls?until=0001-01-01T00:00:00%2B14:00", 422),
            ("GET", "/calls?open=1", 422),
            ("GET", "/calls?open=True", 422),
            ("GET", "/calls?open=yes", 422),
            ("GET", "/calls?limit=5.0", 422),
            ("GET", "/calls?limit=5_0", 422),
            ("GET", "/calls?limit=%205", 422),
            ("GET", "/calls?limit=%2B5", 422),
            ("GET", f"/calls/{uuid.uuid4()}/events?after={1 << 31}", 422),
            ("GET", f"/calls/{uuid.uuid4()}/events?after={(1 << 31) - 1}", 404),
        ):
            async with client.request(method, f"/api/v1{path}") as answer:
                assert answer.status == status, (path, await answer.text())
                assert answer.content_type == "application/problem+json"
                told = await answer.json()
                assert (told["status"], told["type"], bool(told["detail"])) == (status, "about:blank", True)
        async with client.post(
            "/api/v1/calls/create", json={"to": "1"}, headers={"Idempotency-Key": "x" * 256}
        ) as answer:
            assert answer.status == 422
            assert (await answer.json())["errors"][0]["where"] == "header.Idempotency-Key"
        for broken in (b"{", b"\x06\xff\xfe", b'"text"', b"[]"):
            async with client.post("/api/v1/calls/create", data=broken) as answer:
                assert answer.status == 422, broken
                assert (await answer.json())["errors"]
        async with client.post("/api/v1/calls/create", data=b"x" * 100_000) as answer:
            assert (answer.status, answer.content_type) == (413, "application/problem+json")


async def test_without_a_good_key_nothing_is_told(server: ServerProcess, key: str) -> None:
    for wrong in ("", "nonsense", key[:-1], key[:-7] + "0000000"):
        async with asking(server, wrong) as client, client.get("/api/v1/calls") as answer:
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            assert "acme" not in await answer.text()


async def test_a_key_does_what_its_scopes_say(server: ServerProcess) -> None:
    call_id = await asyncio.to_thread(a_call, server)
    reader = await asyncio.to_thread(key_of, server, "acme", "calls:read")
    async with asking(server, reader) as client:
        await get(client, f"/calls/{call_id}")
        for path in ("events", "transcript", "recording"):
            assert "scope" in (await get(client, f"/calls/{call_id}/{path}", 403))["detail"]
        await create(client, 403, to="sip:1@127.0.0.1:9")
        async with client.delete(f"/api/v1/calls/{call_id}") as answer:
            assert answer.status == 403


async def test_a_key_that_is_revoked_is_refused_soon(server: ServerProcess) -> None:
    text = await asyncio.to_thread(key_of, server)
    async with asking(server, text) as client:
        await get(client, "/calls")
        words = ["revoke", text, "--config", str(server.settings_file)]
        revoked = await asyncio.to_thread(CliRunner().invoke, keys_cli.app, words)
        assert revoked.exit_code == 0, revoked.output

        async def status() -> int:
            async with client.get("/api/v1/calls") as answer:
                return answer.status

        await eventually(status, lambda seen: seen == 401)


def required(told: Any, content: Any) -> list[str]:
    """The fields that a body must have."""
    name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
    return list(told["components"]["schemas"][name].get("required", ()))


async def test_another_tenants_key_finds_nothing_anywhere(server: ServerProcess, key: str) -> None:
    """Every operation of the document that names a call; and those that do not show none of the other's."""
    call_id = await asyncio.to_thread(a_call, server)
    theirs = await asyncio.to_thread(key_of, server, "zenith")
    with_live = Phone(server.sip_port)
    assert (await asyncio.to_thread(with_live.invite, "echo")).code == 200
    try:
        await until(lambda: bool(records(server.store, with_live.call_id)), "the record of a call that lives")
        live_id = records(server.store, with_live.call_id)[0].call_id
        async with asking(server, theirs) as client:
            told = await get(client, "/openapi.json")
            tried = 0
            for path, methods in told["paths"].items():
                for method in methods:
                    if "{id}" not in path:
                        continue
                    for one in (call_id, live_id):
                        reference = methods[method].get("requestBody", {}).get("content", {})
                        body = dict.fromkeys(required(told, reference), "1") if reference else None
                        async with client.request(method, path.replace("{id}", one), json=body) as answer:
                            assert answer.status == 404, (method, path)
                            assert "acme" not in await answer.text()
                            tried += 1
            assert tried >= 12
            assert not {call_id, live_id} & {call["id"] for call in (await get(client, "/calls"))["calls"]}
        assert not with_live.ended.is_set()
    finally:
        await asyncio.to_thread(with_live.bye)
        with_live.close()


# --- the document -----------------------------------------------------------------------------------------------------


async def test_answers_are_as_the_document_says(server: ServerProcess, key: str) -> None:
    call_id = await asyncio.to_thread(a_call, server)
    async with asking(server, key) as client:
        told = await get(client, "/openapi.json")
        for path in ("/calls", f"/calls/{call_id}", f"/calls/{call_id}/events", f"/calls/{call_id}/transcript"):
            body = await get(client, path)
            said = told["paths"]["/api/v1" + path.replace(call_id, "{id}")]["get"]["responses"]["200"]
            reference = said["content"]["application/json"]["schema"]["$ref"]
            schema = {"$ref": reference, "components": told["components"]}
            jsonschema.Draft202012Validator(schema).validate(body)
        problem = await get(client, "/calls/none", 404)
        schema = {"$ref": "#/components/schemas/Problem", "components": told["components"]}
        jsonschema.Draft202012Validator(schema).validate(problem)


async def test_the_page_is_there_for_everybody(server: ServerProcess) -> None:
    async with asking(server, "") as client, client.get("/api/v1/docs") as answer:
        assert answer.status == 200
        assert "createCall" in await answer.text()
        assert "script" not in answer.headers["Content-Security-Policy"]


# --- keys on the command line -----------------------------------------------------------------------------------------


def test_keys_are_listed_without_what_opens_doors(server: ServerProcess) -> None:
    text = key_of(server, "acme", "calls:read")
    listed = CliRunner().invoke(keys_cli.app, ["list", "--json", "--config", str(server.settings_file)])
    assert listed.exit_code == 0
    assert text not in listed.output
    found = {each["id"]: each for each in json.loads(listed.output)}
    assert found[text.split("_")[1]]["scopes"] == ["calls:read"]
    wrong = CliRunner().invoke(
        keys_cli.app,
        ["create", "--tenant", "acme", "--name", "x", "--scope", "all", "--config", str(server.settings_file)],
    )
    assert "calls:write" in str(wrong.exception)
