"""People come by a real OpenID provider, from its first page to their session."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from tests.api.rest.people import ask, browser, login, made, run
from tests.api.rest.test_audit import entries
from tests.api.rest.test_calls import OTHER, PLAN
from tests.harness.server import ServerProcess, free_port
from tests.servers.identity import SECRET, IdentityProvider, through

VARIABLE = "SIPSERVER_TEST_OIDC_SECRET"
BEGIN = "/api/v1/login/oidc?tenant=acme&back=/healthz"
PEOPLE: dict[str, dict[str, Any]] = {
    "anna": {"email": "Anna@example.com", "email_verified": True, "name": "Anna", "groups": ["all", "voice-admins"]},
    "bob": {"email": "bob@example.com", "email_verified": True, "name": "Bob", "groups": "support"},
    "carl": {"email": "carl@example.com", "email_verified": True, "groups": ["all"]},
    "dora": {"email": "dora@elsewhere.example", "email_verified": True, "groups": ["support"]},
    "erik": {"email": "erik@example.com", "email_verified": False, "groups": ["support"]},
    "fay": {"email": "fay@example.com", "email_verified": True, "groups": ["support"]},
    "gus": {"email": "gus@example.com", "email_verified": True, "groups": ["support"]},
    "hal": {"email": "hal@example.com", "email_verified": True, "groups": ["support"]},
}


class Rig:
    """A server, and the provider of its tenant acme."""

    def __init__(self, folder: Path, *, conform: bool, **settings: Any) -> None:
        port = free_port(socket.SOCK_STREAM)
        self.callback = f"http://127.0.0.1:{port}/api/v1/login/oidc/callback"
        self.provider = IdentityProvider(self.callback, PEOPLE, conform=conform).start()
        oidc = {
            "issuer": self.provider.issuer,
            "client_id": "sipserver",
            "client_secret_env": VARIABLE,
            "tenants": ["acme"],
            "domains": ["Example.com"],
            "role_claim": "groups",
            "roles": {"support": "operator", "voice-admins": "admin"},
            "create": True,
            **settings,
        }
        overrides = {"http": {"port": port}, "login": {"per_address_per_s": 1000, "oidc": [oidc]}}
        self.server = ServerProcess(folder, {"acme.yaml": PLAN, "zenith.yaml": OTHER}, overrides)
        self.server.http_port = port

    async def go(self, client: aiohttp.ClientSession, person: str) -> str:
        """The address with which the browser comes back."""
        async with client.get(BEGIN, allow_redirects=False) as answer:
            assert answer.status == 302, await answer.text()
            lead = answer.headers["Location"]
        return await through(client, lead, person, until=self.callback)

    async def come(self, client: aiohttp.ClientSession, person: str, status: int = 302) -> Any:
        """From begin to end; what is refused."""
        return await back(client, await self.go(client, person), status)


@contextmanager
def rigged(folder: Path, *, conform: bool = False, **settings: Any) -> Iterator[Rig]:
    rig = Rig(folder, conform=conform, **settings)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(VARIABLE, SECRET)
            rig.server.start()
        yield rig
        assert rig.server.stop() == 0
        assert "Traceback" not in rig.server.log()
        assert SECRET not in rig.server.log()
    finally:
        rig.server.kill()
        rig.provider.stop()


async def back(client: aiohttp.ClientSession, url: str, status: int = 302) -> Any:
    async with client.get(url, allow_redirects=False) as answer:
        assert answer.status == status, await answer.text()
        if status == 302:
            assert answer.headers["Location"] == "/healthz"
            return None
        return json.loads(await answer.text())


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with rigged(tmp_path_factory.mktemp("provider")) as made:
        yield made


async def test_who_comes_first_is_made_with_the_role_of_the_claim(rig: Rig) -> None:
    async with browser(rig.server) as client:
        await rig.come(client, "anna")
        me = await ask(client, "GET", "/me")
        assert (me["name"], me["role"], me["tenant"]) == ("anna@example.com", "admin", "acme")
        await ask(client, "POST", "/logout", 204, csrf=me["csrf"])
        await ask(client, "GET", "/me", 401)
        await rig.come(client, "anna")
        assert (await ask(client, "GET", "/me"))["id"] == me["id"]
        user = await ask(client, "GET", f"/users/{me['id']}")
        assert (user["by_provider"], user["has_password"]) == (True, False)
        await login(client, "anna@example.com", status=401)
    found = await asyncio.to_thread(entries, rig.server, "acme")
    acts = [(each["actor"], each["action"]) for each in found if "anna" in repr(each)]
    assert acts[:2] == [("system", "user.created"), ("user:anna@example.com", "user.logged_in")]


async def test_many_windows_of_one_person_make_one_user(rig: Rig) -> None:
    async def window() -> str:
        async with browser(rig.server) as client:
            await rig.come(client, "bob")
            return str((await ask(client, "GET", "/me"))["id"])

    assert len(set(await asyncio.gather(*(window() for _ in range(4))))) == 1


@pytest.mark.parametrize(
    ("person", "says"), [("carl", "role"), ("dora", "e-mail"), ("erik", "e-mail")], ids=["role", "domain", "verified"]
)
async def test_whom_the_settings_do_not_let_in_stays_outside(rig: Rig, person: str, says: str) -> None:
    async with browser(rig.server) as client:
        assert says in (await rig.come(client, person, 403))["detail"]
        await ask(client, "GET", "/me", 401)


async def test_a_user_who_was_there_is_linked_by_the_address_and_gets_the_role(rig: Rig) -> None:
    email = await made(rig.server, "fay@example.com", "viewer")
    async with browser(rig.server) as client:
        await rig.come(client, "fay")
        assert (await ask(client, "GET", "/me"))["role"] == "operator"
        await asyncio.to_thread(run, rig.server, "disable", email, "--tenant", "acme", password=None)
        await ask(client, "GET", "/me", 401)
        assert "disabled" in (await rig.come(client, "fay", 403))["detail"]


async def test_the_last_owner_stays_one_whatever_the_provider_says(rig: Rig) -> None:
    await made(rig.server, "gus@example.com", "owner")
    async with browser(rig.server) as client:
        await rig.come(client, "gus")
        assert (await ask(client, "GET", "/me"))["role"] == "owner"


async def test_only_the_browser_that_went_comes_back_and_once(rig: Rig) -> None:
    async with browser(rig.server) as client, browser(rig.server) as second:
        url = await rig.go(client, "bob")
        assert "browser" in (await back(second, url, 400))["detail"]
        await rig.go(second, "hal")
        assert "browser" in (await back(second, url, 400))["detail"], "it is another flow's"
        await back(client, url.replace("state=", "state=x"), 400)
        await back(client, f"{url}&iss=https://evil.example".replace("&iss=http%3A", "&was=http%3A"), 400)
        await back(client, url)
        await back(client, url, 400)
    async with browser(rig.server) as client:
        state = parse_qs(urlsplit(await rig.go(client, "bob")).query)["state"][0]
        await back(client, f"{rig.callback}?state={state}&code=guessed", 502)
        await back(client, f"{rig.callback}?state={state}&error=access_denied", 403)
        await ask(client, "GET", "/me", 401)


async def test_the_way_there_has_what_it_must(rig: Rig) -> None:
    async with browser(rig.server) as client:
        async with client.get(BEGIN, allow_redirects=False) as answer:
            asked = parse_qs(urlsplit(answer.headers["Location"]).query)
            cookie = answer.headers["Set-Cookie"]
        assert (asked["code_challenge_method"], asked["response_type"]) == (["S256"], ["code"])
        assert {"state", "nonce", "code_challenge"} <= set(asked)
        assert "HttpOnly" in cookie
        for wrong in ("https://evil.example/", "//evil.example", "/\\evil.example", "evil", "/a\nb"):
            params = {"tenant": "acme", "back": wrong}
            await ask(client, "GET", "/login/oidc", 422, params=params)
        await ask(client, "GET", "/login/oidc", 404, params={"tenant": "zenith"})


async def test_new_keys_of_the_provider_are_fetched(tmp_path: Path) -> None:
    with rigged(tmp_path, conform=True, roles={}, role_claim="", new_role="viewer") as rig:
        async with browser(rig.server) as client:
            await rig.come(client, "carl")
            assert (await ask(client, "GET", "/me"))["role"] == "viewer", "claims of UserInfo count as well"
        await asyncio.to_thread(rig.provider.rotate)
        deadline = asyncio.get_running_loop().time() + 60
        while True:
            async with browser(rig.server) as client:
                url = await rig.go(client, "carl")
                async with client.get(url, allow_redirects=False) as answer:
                    if answer.status == 302 or asyncio.get_running_loop().time() > deadline:
                        break
        assert answer.status == 302
        await asyncio.to_thread(rig.provider.stop)
        async with browser(rig.server) as client:
            async with client.get(BEGIN, allow_redirects=False) as answer:
                lead = answer.headers["Location"]
            state = parse_qs(urlsplit(lead).query)["state"][0]
            told = await back(client, f"{rig.callback}?state={state}&code=x", 502)
            assert "does not answer" in told["detail"]
