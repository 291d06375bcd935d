"""A tenant's dialplan by REST, on a real server whose calls follow it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.api.rest.test_audit import entries
from tests.api.rest.test_calls import OTHER, asking, get, key_of
from tests.fakes.until import eventually
from tests.harness.phone import Phone
from tests.harness.server import ServerProcess

PLAN = """tenant: acme
targets: ["+49*", "!+49900*"]
agents:
  anna:
    prompt: You are Anna.
    stt: [cloud]
    llm: {use: cloud}
    tts: {use: espeak, fallback: []}
    http_tools:
      - {name: crm, description: d, url: "https://crm.acme.example/ask?token=s3cret", headers: {Authorization: s3cret}}
flows:
  main: [answer, {play: beside.wav}, {bridge: {to: "+4930123", on: {failed: end}}}]
routes:
  - {match: {to: "1*", transport: udp}, flow: main}
  - {match: {direction: outbound}, flow: main}
"""
PLAIN = """tenant: acme
flows:
  main: [answer, {echo: {max_s: 60}}]
  other: [{hangup: 486}]
routes:
  - {match: {to: "1*", transport: udp}, flow: FLOW}
"""
ENGINES = "stt: [cloud], llm: {use: cloud}, tts: {use: espeak, fallback: []}"
AGENTS = {"agents": 2, "branding": {"display_name": "Acme", "accent_colour": "#0A7CFF"}}
NEW = "tenant: fresh\nflows: {main: [answer]}\nroutes: [{match: {to: 77}, flow: main}]\n"
BROTHER = "tenant: brother\nflows: {main: [answer]}\nroutes: [{match: {to: b}, flow: main}]\n"


def plan(flow: str = "main") -> str:
    return PLAIN.replace("FLOW", flow)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, store: dict[str, Any]) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("plans")
    made = ServerProcess(
        folder,
        {"acme.yaml": PLAN, "zenith.yaml": OTHER, "b.yaml": BROTHER},
        {
            "http": {"host": "127.0.0.1", "api_per_s": 500},
            "speech": {
                "stt": {"cloud": {"vendor": "openai", "model": "m", "api_key_env": "PATH"}},
                "tts": {"espeak": {"vendor": "espeak", "processes": 1}},
            },
            "llm": {"cloud": {"vendor": "openai", "model": "m", "api_key_env": "PATH"}},
            "tenants": {
                "fresh": {"calls": 7, "numbers": ["77"], "targets": ["+43*"], "hosts": ["*.fresh.example"]},
                "acme": AGENTS,
            },
        }
        | store,
    )
    (made.dialplans / "sounds").mkdir()
    for name in ("beside.wav", "sounds/good.wav"):
        (made.dialplans / name).write_bytes(b"RIFF")
    yield made.start()
    assert made.stop() == 0
    assert "Traceback" not in made.log()


ALL = ("dialplans:read", "dialplans:write", "config:read")


@asynccontextmanager
async def client_of(server: ServerProcess, tenant: str = "acme", *scopes: str) -> AsyncIterator[aiohttp.ClientSession]:
    key = await asyncio.to_thread(key_of, server, tenant, *(scopes or ALL))
    async with asking(server, key) as client:
        yield client


async def read(client: aiohttp.ClientSession, name: str = "acme") -> tuple[str, str]:
    """Text and ETag."""
    async with client.get(f"/api/v1/dialplans/{name}") as answer:
        assert answer.status == 200, await answer.text()
        assert answer.content_type == "application/yaml"
        return await answer.text(), answer.headers["ETag"]


async def put(
    client: aiohttp.ClientSession, text: str | bytes, status: int = 200, name: str = "acme", **headers: str
) -> Any:
    sent = {header.replace("_", "-"): value for header, value in headers.items()}
    async with client.put(f"/api/v1/dialplans/{name}", data=text, headers=sent) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json()


async def change(client: aiohttp.ClientSession, text: str, status: int = 200) -> Any:
    _, etag = await read(client)
    return await put(client, text, status, If_Match=etag)


def answer_of(server: ServerProcess, to: str) -> int:
    with Phone(server.sip_port) as phone:
        code = phone.invite(to).code
        if code == 200:
            phone.bye()
        return code


async def is_answered(server: ServerProcess, to: str, code: int) -> None:
    await eventually(lambda: asyncio.to_thread(answer_of, server, to), lambda seen: seen == code, f"{code} to {to}")


@pytest.fixture
async def client(server: ServerProcess) -> AsyncIterator[aiohttp.ClientSession]:
    """Of acme, whose dialplan is PLAN, the operator's own."""
    async with client_of(server) as made:
        await eventually(lambda: read(made), lambda seen: "tenant: acme" in seen[0])
        _, etag = await read(made)
        await put(made, PLAN, If_Match=etag)
        yield made


async def test_a_change_gets_into_calls_and_a_call_that_runs_keeps_what_it_has(
    server: ServerProcess, client: aiohttp.ClientSession
) -> None:
    assert (await change(client, plan("other")))["by"].startswith("key:")
    await is_answered(server, "100", 486)
    await change(client, plan())
    await is_answered(server, "100", 200)
    with Phone(server.sip_port) as phone:
        assert (await asyncio.to_thread(phone.invite, "100")).code == 200
        phone.start_media()
        await change(client, plan("other"))
        await is_answered(server, "100", 486)
        assert not phone.ended.is_set()
        await asyncio.to_thread(phone.bye)
    assert (server.dialplans / "acme.yaml").read_text() == plan("other")


async def test_who_changes_must_have_read_what_is_there(client: aiohttp.ClientSession) -> None:
    _, first = await read(client)
    assert "If-Match" in (await put(client, plan(), 428))["detail"]
    made = await put(client, plan(), If_Match=first)
    await put(client, plan("other"), 412, If_Match=first)
    await put(client, plan("other"), 412, If_Match=f"W/{made['etag']}")
    await put(client, plan("other"), 412, If_None_Match="*")
    assert (await put(client, plan(), If_Match=made["etag"]))["version"] == made["version"], "nothing has changed"
    await put(client, plan("other"), If_Match=f'"x", {made["etag"]}')
    async with client.delete("/api/v1/dialplans/acme") as answer:
        assert answer.status == 428


async def test_of_many_who_change_it_at_once_one_wins(server: ServerProcess, client: aiohttp.ClientSession) -> None:
    for turn in range(4):
        _, etag = await read(client)
        texts = [plan() + f"# {turn} {number}\n" for number in range(8)]

        async def one(text: str, etag: str = etag) -> int:
            url = "/api/v1/dialplans/acme"
            async with client.put(url, data=text, headers={"If-Match": etag}) as answer:
                return answer.status

        statuses = await asyncio.gather(*map(one, texts))
        assert sorted(statuses) == [200] + [412] * 7
        text, _ = await read(client)
        assert text == texts[statuses.index(200)]
        assert (server.dialplans / "acme.yaml").read_text() == text


async def test_mistakes_are_told_with_their_place_and_nothing_changes(client: aiohttp.ClientSession) -> None:
    before = await read(client)
    told = await change(client, plan("nowhere"), 422)
    (error,) = told["errors"]
    assert (error["line"], error["column"]) == (6, 41)
    assert error["where"] == "line 6, column 41: routes[0].flow" or "routes[0].flow" in error["where"]
    assert "nowhere" in error["reason"]
    for text in ("", "tenant: [", "a: &a [*a]", "\x00", "tenant: acme\ntenant: acme\n", "- 1\n", "[" * 20_000):
        errors = (await change(client, text, 422))["errors"]
        assert errors, text[:20]
        assert "/" not in errors[0]["where"], "no path of the server"
    assert await read(client) == before


async def test_a_dialplan_is_checked_without_a_change(client: aiohttp.ClientSession) -> None:
    before = await read(client)

    async def said(text: str) -> Any:
        async with client.post("/api/v1/dialplans/validate", data=text) as answer:
            assert answer.status == 200
            return await answer.json()

    assert (await said(plan()))["valid"]
    assert [warning["line"] for warning in (await said(plan()))["warnings"]] == [4]
    wrong = await said(plan().replace("hangup", "hangupp"))
    assert not wrong["valid"]
    assert "hangup" in wrong["errors"][0]["reason"]
    assert await read(client) == before


SHORT = "tenant: acme\nflows: {main: [answer, STEP]}\nroutes: [{match: {to: 10, transport: udp}, flow: main}]\n"


def with_step(step: str) -> str:
    return SHORT.replace("STEP", step)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (plan().replace("acme", "zenith"), "tenant"),
        (plan().replace('to: "1*", ', ""), "routes[0].match"),
        (plan().replace("1*", "*"), "routes[0].match"),
        (plan().replace(", transport: udp", ""), "routes[0].match"),
        (plan().replace("1*", "zenith"), "routes[0].match"),
        (plan() + 'targets: ["*", "!+49900*"]\n', "targets"),
        (plan() + 'targets: ["+49*"]\n', "targets"),
        (with_step('{bridge: {to: "+43123", on: {failed: end}}}'), "flows.main[1].bridge"),
        (with_step('{bridge: {to: "+4990012", on: {failed: end}}}'), "flows.main[1].bridge"),
        (with_step('{bridge: {to: "sip:1@127.0.0.1", on: {failed: end}}}'), "flows.main[1].bridge"),
        (with_step("{play: /etc/hostname}"), "flows.main[1].play"),
        (with_step("{play: /no/such/file}"), "flows.main[1].play"),
        (with_step("{play: ../sipserver.yaml}"), "flows.main[1].play"),
        (with_step("{play: sounds/../zenith.yaml}"), "flows.main[1].play"),
        (with_step("{stream: {url: 'ws://127.0.0.1:6379/', on: {failed: end}}}"), "flows.main[1].stream.url"),
        (
            with_step("{stream: {url: 'wss://crm.acme.example', headers_env: {X: PATH}, on: {failed: end}}}"),
            "flows.main[1].stream",
        ),
        (with_step("{say: {text: hi, tts: nobodys}}"), "flows.main[1].say.tts"),
    ],
)
async def test_what_the_operator_did_not_allow_is_refused(client: aiohttp.ClientSession, text: str, where: str) -> None:
    before = await read(client)
    errors = (await change(client, text, 422))["errors"]
    assert [error for error in errors if where in error["where"]], errors
    assert not [error for error in errors if "no such file" in error["reason"]], "what is there is not told"
    assert await read(client) == before


async def test_what_is_narrower_than_the_operators_is_taken(client: aiohttp.ClientSession) -> None:
    for text in (
        with_step("{play: beside.wav}"),
        with_step("{play: sounds/good.wav}"),
        with_step('{bridge: {to: "+4930777", on: {failed: end}}}'),
        plan() + 'targets: ["+4930*", "!+49900*", "!+491*"]\n',
        plan().replace("1*", "12?"),
        plan() + "  - {match: {direction: outbound}, flow: other}\n",
    ):
        await change(client, text)


async def test_versions_are_listed_read_and_taken_back(server: ServerProcess, client: aiohttp.ClientSession) -> None:
    first = await change(client, plan())
    second = await change(client, plan("other"))
    told = (await get(client, "/dialplans/acme/history?limit=2"))["versions"]
    assert [each["version"] for each in told] == [second["version"], first["version"]]
    older = (await get(client, f"/dialplans/acme/history?before={first['version']}"))["versions"]
    assert (older[-1]["version"], older[-1]["by"]) == (1, "operator")
    async with client.get(f"/api/v1/dialplans/acme/history/{first['version']}") as answer:
        assert await answer.text() == plan()
    url, headers = "/api/v1/dialplans/acme/rollback", {"If-Match": second["etag"]}
    async with client.post(url, json={"version": first["version"]}) as answer:
        assert answer.status == 428
    async with client.post(url, json={"version": first["version"]}, headers=headers) as answer:
        assert answer.status == 200
        assert (await answer.json())["version"] == second["version"] + 1
        assert answer.headers["ETag"] == first["etag"]
    async with client.post(url, json={"version": first["version"]}, headers=headers) as answer:
        assert answer.status == 412
    assert (await read(client))[0] == plan()
    await get(client, "/dialplans/acme/history/999", 404)
    for none in ("x", "9" * 20):
        refusal = await get(client, f"/dialplans/acme/history/{none}", 404)
        assert refusal["detail"] == "there is no such version"
    await get(client, f"/dialplans/acme/history?before={(1 << 31) - 1}")
    await get(client, f"/dialplans/acme/history?before={1 << 31}", 422)
    noted = await asyncio.to_thread(entries, server, "acme")
    assert ("dialplan.changed", "dialplan:acme") in [(each["action"], each["subject"]) for each in noted]
    assert [each["action"] for each in noted[-2:]] == ["dialplan.rolled_back.asked", "dialplan.rolled_back.failed"]
    done = next(each for each in reversed(noted) if each["action"] == "dialplan.rolled_back")
    assert done["detail"]["version"] == second["version"] + 1
    assert done["detail"]["sha256"] in first["etag"]


async def test_a_change_by_hand_is_a_version_and_nobody_writes_over_it(
    server: ServerProcess, client: aiohttp.ClientSession
) -> None:
    file = server.dialplans / "acme.yaml"
    made = await change(client, plan())
    file.write_text(plan("other"))
    async with client.put(
        "/api/v1/dialplans/acme", data=plan() + "# mine\n", headers={"If-Match": made["etag"]}
    ) as answer:
        assert answer.status in (409, 412), "it is too fresh, or already a version"
    text, etag = await eventually(lambda: read(client), lambda seen: seen[0] == plan("other"), "the version by hand")
    await put(client, plan() + "# mine\n", 412, If_Match=made["etag"])
    told = (await get(client, "/dialplans/acme/history?limit=1"))["versions"][0]
    assert (told["by"], told["version"]) == ("operator", made["version"] + 1)
    noted = [(each["actor"], each["action"]) for each in await asyncio.to_thread(entries, server, "acme")]
    assert ("operator", "dialplan.changed") in noted
    file.write_text("tenant: acme\nflows: [")
    refused = await put(client, plan(), 409, If_Match=etag)
    assert "operator" in refused["detail"]
    assert file.read_text() == "tenant: acme\nflows: ["
    assert (await read(client))[0] == text, "what is no dialplan is no version"
    file.write_text(PLAN)
    await eventually(lambda: read(client), lambda seen: seen[0] == PLAN, "the operator's dialplan as it was")


async def test_a_new_one_is_made_within_what_the_settings_say_and_deleted(server: ServerProcess) -> None:
    async with client_of(server, "fresh") as client:
        assert (await get(client, "/dialplans"))["dialplans"] == []
        await put(client, NEW, 409, name="other", If_None_Match="*")
        await put(client, NEW, 409, name="zenith", If_None_Match="*")
        await put(client, NEW, 404, name="fresh", If_Match="*")
        made = await put(client, NEW, 201, name="fresh", If_None_Match="*")
        assert made["version"] == 1
        await is_answered(server, "77", 200)
        await put(client, NEW.replace("77", "78"), 422, name="fresh", If_Match="*")
        allowed = NEW.replace("[answer]", "[answer, {stream: {url: wss://bot.fresh.example/, on: {failed: end}}}]")
        await put(client, allowed, name="fresh", If_Match="*")
        evil = NEW.replace(
            "[answer]", "[answer, {stream: {url: 'wss://evil.example/.fresh.example', on: {failed: end}}}]"
        )
        await put(client, evil, 422, name="fresh", If_Match="*")
        async with client.delete("/api/v1/dialplans/fresh", headers={"If-Match": "*"}) as answer:
            assert answer.status == 204
        assert not (server.dialplans / "fresh.yaml").exists()
        await is_answered(server, "77", 404)
        told = (await get(client, "/dialplans/fresh/history"))["versions"]
        assert [each["deleted"] for each in told] == [True, False, False]
        assert (await put(client, NEW, 201, name="fresh", If_None_Match="*"))["version"] == 4
        async with client.delete("/api/v1/dialplans/fresh", headers={"If-Match": "*"}) as answer:
            assert answer.status == 204


async def test_names_are_no_paths_and_other_tenants_have_none(
    server: ServerProcess, client: aiohttp.ClientSession
) -> None:
    before = {file.name: file.read_bytes() for file in server.dialplans.iterdir() if file.is_file()}
    names = ("zenith", "b", "brother", "..%2Fzenith", "%2e%2e%2facme", "acme%00", "acme.yaml", "a%0d%0aX:%20y", "'--")
    async with client_of(server, "zenith") as theirs:
        for name in names:
            if name != "zenith":
                async with theirs.get(_url(name)) as answer:
                    assert answer.status == 404
    for name in names:
        for method in ("GET", "PUT", "DELETE"):
            headers = {"If-Match": "*"}
            async with client.request(method, _url(name), data=plan(), headers=headers) as answer:
                assert answer.status == 404, (method, name)
        async with client.put(_url(name), data=plan(), headers={"If-None-Match": "*"}) as answer:
            assert answer.status in (409, 412), name
        async with client.get(_url(f"{name}/history")) as answer:
            assert answer.status == 404
    after = {file.name: file.read_bytes() for file in server.dialplans.iterdir() if file.is_file()}
    assert after == before
    async with client_of(server, "zenith") as theirs:
        assert [each["name"] for each in (await get(theirs, "/dialplans"))["dialplans"]] == ["zenith"]
        for path in ("", "/history", "/history/1"):
            refusal = await get(theirs, f"/dialplans/acme{path}", 404)
            assert "acme" not in refusal.get("detail", "")


def _url(name: str) -> Any:
    from yarl import URL

    return URL(f"/api/v1/dialplans/{name}", encoded=True)


async def test_what_is_huge_is_refused_and_the_server_goes_on(
    server: ServerProcess, client: aiohttp.ClientSession
) -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
    for before, name in zip("abcdefg", "bcdefgh", strict=True):
        bomb += f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]\n"
    routes = [f"  - {{match: {{to: 1{number}}}, flow: nowhere{number}}}\n" for number in range(2500)]
    head = "tenant: acme\nflows: {main: [answer]}\nroutes:\n"
    await change(client, "#" * 1_000_000, 413)
    for text in (bomb, head + "".join(routes), head + "".join(routes[:300])):
        asked = asyncio.create_task(change(client, text, 422))
        while not asked.done():
            async with client.get("/api/v1/health") as answer:
                assert (await answer.json())["database"]
        assert len((await asked)["errors"]) <= 100
    await change(client, plan())


async def test_scopes_say_who_may(server: ServerProcess) -> None:
    async with client_of(server, "acme", "dialplans:read") as reader:
        _, etag = await read(reader)
        await put(reader, plan(), 403, If_Match=etag)
    async with client_of(server, "acme", "config:read") as other:
        await get(other, "/dialplans", 403)


async def test_agents_numbers_trunks_and_limits_are_shown_without_secrets(
    server: ServerProcess, client: aiohttp.ClientSession
) -> None:
    agents = (await get(client, "/agents"))["agents"]
    assert [agent["name"] for agent in agents] == ["anna"]
    assert await get(client, "/agents/anna") == agents[0]
    assert agents[0]["http_tools"][0]["url"] == "https://crm.acme.example/ask"
    assert "s3cret" not in str(agents)
    await get(client, "/agents/nobody", 404)
    numbers = (await get(client, "/numbers"))["numbers"]
    assert numbers[0] == {"to": ["1*"], "flow": "main", "match": "to=1* transport=udp"}
    assert (await get(client, "/trunks"))["trunks"] == []
    told = await get(client, "/tenant")
    assert (told["calls"], told["agents"]) == ({"limit": None, "used": 0}, {"limit": 2, "used": 1})
    assert told["branding"] == {
        "display_name": "Acme",
        "logo_url": None,
        "accent_colour": "#0a7cff",
        "support_url": None,
        "support_email": None,
    }
    async with client_of(server, "fresh") as fresh:
        told = await get(fresh, "/tenant")
        assert (told["name"], told["calls"]["limit"], told["numbers"]) == ("fresh", 7, ["77"])
        assert told["agents"] == {"limit": None, "used": 0}
        assert set(told["branding"].values()) == {None}


async def test_a_dialplan_with_more_agents_than_there_may_be_is_refused_and_the_other_one_stays(
    server: ServerProcess, client: aiohttp.ClientSession
) -> None:
    def with_agents(count: int) -> str:
        return plan() + "agents:\n" + "".join(f"  a{number}: {{prompt: x, {ENGINES}}}\n" for number in range(count))

    await change(client, with_agents(2))
    text, etag = await read(client)
    (error,) = (await put(client, with_agents(4), 422, If_Match=etag))["errors"]
    assert (error["line"], error["where"]) == (10, "line 10: agents.a2")
    assert "4 agents, and the tenant acme may have 2" in error["reason"]
    async with client.post("/api/v1/dialplans/validate", data=with_agents(3)) as answer:
        told = await answer.json()
        assert (answer.status, told["valid"]) == (200, False)
        assert "3 agents" in told["errors"][0]["reason"]
    assert await read(client) == (text, etag)
    await is_answered(server, "1", 200)
    assert (await get(client, "/tenant"))["agents"] == {"limit": 2, "used": 2}


async def test_health_needs_no_key_and_tells_of_nobody(server: ServerProcess) -> None:
    async with asking(server, "") as anybody, anybody.get("/api/v1/health") as answer:
        assert answer.status == 200
        told = await answer.json()
    assert told == {"status": "ok", "takes_calls": True, "database": True, "bus": True}


def test_a_file_that_names_no_tenant_of_its_own_is_nobodys(tmp_path: Path) -> None:
    from sipserver.dialplan.shelf import tenant_of

    assert tenant_of('tenant: acme\nvariables: {a: "x\ntenant: zenith\n"}\n', tmp_path) == "acme"
    assert tenant_of("tenant: [", tmp_path) == ""
