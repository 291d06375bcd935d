"""Another tenant asks for everything of ours that there is, at every operation: it finds nothing (404, never 403)."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from yarl import URL

from sipserver.tenants.keys import ALL
from tests.api.rest.people import browser, login, made
from tests.api.rest.test_calls import OTHER, PLAN, a_call, asking, get, key_of
from tests.api.rest.test_users import BODIES
from tests.api.rest.test_webhooks import send
from tests.harness.server import ServerProcess

AGENT = """
agents:
  anna: {prompt: You are Anna., stt: [cloud], llm: {use: cloud}, tts: {use: espeak, fallback: []}}
"""
CLOUD = {"cloud": {"vendor": "openai", "model": "m", "api_key_env": "PATH"}}
SPEECH = {"stt": CLOUD, "tts": {"espeak": {"vendor": "espeak", "processes": 1}}}
SPELT = (str, str.upper, lambda text: "".join(f"%{ord(letter):02x}" for letter in text), lambda text: f"{text}%20")
"""As it is, and as somebody may write it who hopes to be mistaken for another."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, store: dict[str, Any]) -> Iterator[ServerProcess]:
    process = ServerProcess(
        tmp_path_factory.mktemp("others"),
        {"acme.yaml": PLAN + AGENT, "zenith.yaml": OTHER},
        {
            "http": {"host": "127.0.0.1", "api_per_s": 5000},
            "login": {"per_address_per_s": 1000},
            "speech": SPEECH,
            "llm": CLOUD,
        }
        | store,
    )
    yield process.start()
    assert process.stop() == 0
    assert "Traceback" not in process.log()


@pytest.fixture(scope="module")
def key(server: ServerProcess) -> str:
    return key_of(server, "acme", *ALL)


async def things(server: ServerProcess, key: str) -> Mapping[str, str]:
    """One of ours of each kind, by the name of its part in a path."""
    email = await made(server, "owner@example.com", "owner")
    call_id = await asyncio.to_thread(a_call, server)
    async with browser(server) as client, asking(server, key) as program:
        me = await login(client, email)
        hook = await send(program, "POST", "/webhooks", 201, url="https://hooks.example.com/")
    found = {"id": call_id, "endpoint": hook["id"], "user": me["id"], "session": me["session"]}
    return {**found, "key": key.split("_")[1], "name": "acme", "number": "1", "agent": "anna"}


async def test_another_tenants_key_finds_nothing_at_any_operation(server: ServerProcess, key: str) -> None:
    ours = await things(server, key)
    theirs = await asyncio.to_thread(key_of, server, "zenith", *ALL)
    stranger = await made(server, "stranger@example.com", "owner", "zenith")
    walked = 0
    async with asking(server, theirs) as program, browser(server) as person, asking(server, key) as own:
        csrf = (await login(person, stranger, tenant="zenith"))["csrf"]
        document = await get(own, "/openapi.json")
        for path, methods in document["paths"].items():
            names = re.findall(r"{(\w+)}", path)
            for method, said in methods.items():
                by_person = said.get("security") == [{"session": []}]
                client, headers = (person, {"X-CSRF-Token": csrf}) if by_person else (program, {})
                body = None if method in ("get", "delete") else BODIES.get(path.rpartition("/")[2], {})
                for spell in SPELT if names else ():
                    filled = path.format(**{name: spell(ours[name]) for name in names})
                    url = URL(filled, encoded=True)
                    async with client.request(method, url, json=body, headers={**headers, "If-Match": "*"}) as answer:
                        text = await answer.text()
                        assert answer.status == 404, (method, filled, answer.status, text)
                        assert not [
                            one for name, one in ours.items() if name not in names and len(one) > 3 and one in text
                        ]
                    walked += 1
        assert walked > 4 * 30
        await are_still_there(own, ours)


async def are_still_there(own: Any, ours: Mapping[str, str]) -> None:
    for path in ("calls/{id}", "webhooks/{endpoint}", "users/{user}", "agents/{agent}"):
        await get(own, f"/{path.format(**ours)}")
    async with own.get("/api/v1/dialplans/acme") as answer:
        assert answer.status == 200
    assert ours["key"] in {each["id"] for each in (await get(own, "/keys"))["keys"]}


async def test_lists_show_another_tenant_nothing(server: ServerProcess, key: str) -> None:
    async with asking(server, key) as own:
        seen = {"calls": (await get(own, "/calls"))["calls"], "keys": (await get(own, "/keys"))["keys"]}
        document = await get(own, "/openapi.json")
    ids = {each["id"] for listed in seen.values() for each in listed}
    theirs = await asyncio.to_thread(key_of, server, "zenith", *ALL)
    listed = 0
    async with asking(server, theirs) as client:
        for path, methods in document["paths"].items():
            said = methods.get("get")
            if said is None or "{" in path or "Needs the scope" not in said["description"]:
                continue
            query = {"from": "2020-01-01T00:00:00Z", "to": "2020-12-01T00:00:00Z"} if path.endswith("/usage") else {}
            query |= {"month": f"{datetime.now(UTC):%Y-%m}"} if path.endswith("/export") else {}
            async with client.get(path, params=query) as answer:
                text = await answer.text()
                assert answer.status == 200, (path, text)
            if path.endswith("/audit"):  # what they asked for themselves, and did not get, is theirs
                entries = json.loads(text)["entries"]
                text = json.dumps([each for each in entries if not each["action"].endswith((".asked", ".failed"))])
            listed += 1
            for word in (*ids, "acme", "anna", "owner@example.com", "hooks.example.com"):
                assert word not in text, path
    assert ids
    assert listed > 8
