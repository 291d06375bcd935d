"""Users by REST, and what each role may do of all that there is, as the table says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest

from sipserver.tenants.keys import Scope
from sipserver.tenants.roles import PERMISSIONS, Role
from tests.api.rest.people import PASSWORD, ask, browser, login, made, run
from tests.api.rest.test_audit import entries
from tests.api.rest.test_calls import OTHER, PLAN, a_call, asking, get, key_of
from tests.harness.server import ServerProcess

_SCOPE = re.compile(r"Needs the scope `([a-z:]+)`")
BODIES = {
    "transfer": {"to": "1"},
    "say": {"text": "x"},
    "play": {"file": "x.wav"},
    "digits": {"digits": "1"},
    "replay": {"since": "2020-01-01T00:00:00Z"},
    "rollback": {"version": 1},
    "erase": {"number": "1"},
    "export": {"number": "1"},
}
"""What operations need that another tenant's owner asks for, by the last word of their path."""
ID = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, store: dict[str, Any]) -> Iterator[ServerProcess]:
    made = ServerProcess(
        tmp_path_factory.mktemp("users"),
        {"acme.yaml": PLAN, "zenith.yaml": OTHER},
        {"login": {"per_address_per_s": 1000}, "http": {"api_per_s": 1000}} | store,
    )
    yield made.start()
    assert made.stop() == 0
    assert "Traceback" not in made.log()


async def operations(client: Any) -> list[tuple[str, str, Scope]]:
    """Method, path and scope of each that needs one."""
    async with client.get("/api/v1/openapi.json") as answer:
        paths = (await answer.json())["paths"]
    found = []
    for path, methods in paths.items():
        for method, said in methods.items():
            if needed := _SCOPE.search(said["description"]):
                filled = re.sub(r"{(user|session)}", ID.replace("-", ""), path.removeprefix("/api/v1"))
                found.append((method.upper(), re.sub(r"{\w+}", ID, filled), Scope(needed[1])))
    return found


@pytest.mark.parametrize("role", Role)
async def test_each_role_may_do_what_the_table_says_and_nothing_else(server: ServerProcess, role: Role) -> None:
    email = await made(server, f"all-{role}@example.com", role)
    async with browser(server) as client:
        me = await login(client, email)
        assert set(me["permissions"]) == PERMISSIONS[role]
        offered = await operations(client)
        assert {scope for _, _, scope in offered} == set(Scope), "every scope is good for something"
        for method, path, scope in offered:
            body: dict[str, str] | None = None if method in ("GET", "DELETE") else {}
            headers = {"X-CSRF-Token": me["csrf"]}
            async with client.request(method, f"/api/v1{path}", json=body, headers=headers) as answer:
                refused = answer.status == 403
                assert answer.status < 500
                assert answer.status != 401
            assert refused == (scope not in PERMISSIONS[role]), (method, path, scope)


async def test_users_are_made_changed_and_shut_out(server: ServerProcess) -> None:
    owner = await made(server, "owner@example.com", "owner")
    async with browser(server) as client, browser(server) as second:
        csrf = (await login(client, owner))["csrf"]
        body = {"email": "New@Example.com", "name": "New", "role": "analyst", "password": f" {PASSWORD} "}
        user = await ask(client, "POST", "/users", 201, csrf=csrf, json=body)
        assert (user["email"], user["role"], user["enabled"], user["login_at"]) == (
            "new@example.com",
            "analyst",
            True,
            None,
        )
        assert "already" in (await ask(client, "POST", "/users", 400, csrf=csrf, json=body))["detail"]
        one = f"/users/{user['id']}"
        await login(second, "new@example.com", status=401)
        await login(second, "new@example.com", f" {PASSWORD} ")
        assert (await ask(client, "GET", one))["login_at"] is not None
        changed = await ask(client, "PATCH", one, csrf=csrf, json={"role": "viewer", "name": "Newer"})
        assert (changed["role"], changed["name"]) == ("viewer", "Newer")
        assert (await ask(second, "GET", "/me"))["role"] == "viewer"
        await ask(client, "PATCH", one, csrf=csrf, json={"enabled": False})
        await ask(second, "GET", "/me", 401)
        assert user["id"] in [each["id"] for each in (await ask(client, "GET", "/users"))["users"]]
        for wrong in ({"role": "king"}, {"email": "other@example.com"}, {"name": "a\nb"}):
            await ask(client, "PATCH", one, 422, csrf=csrf, json=wrong)
        log = (await ask(client, "GET", "/audit?limit=5"))["entries"]
    assert log[0]["detail"] == {"asked": log[1]["number"], "email": "new@example.com", "enabled": False}
    assert [(each["actor"], each["action"]) for each in log] == [
        ("user:owner@example.com", "user.changed"),
        ("user:owner@example.com", "user.changed.asked"),
        ("user:owner@example.com", "user.changed"),
        ("user:owner@example.com", "user.changed.asked"),
        ("user:new@example.com", "user.logged_in"),
    ]
    found = await asyncio.to_thread(entries, server, "acme")
    assert PASSWORD not in repr(found)


async def test_nobody_gives_or_takes_a_role_above_his_own(server: ServerProcess) -> None:
    owner, admin = await made(server, "top@example.com", "owner"), await made(server, "admin@example.com", "admin")
    key = await asyncio.to_thread(key_of, server)
    async with browser(server) as client, browser(server) as second, asking(server, key) as program:
        csrf, top = (await login(client, admin))["csrf"], await login(second, owner)
        new = {"email": "higher@example.com", "role": "owner"}
        assert "owner" in (await ask(client, "POST", "/users", 403, csrf=csrf, json=new))["detail"]
        await ask(program, "POST", "/users", 403, json=new)
        own = (await ask(client, "GET", "/me"))["id"]
        await ask(client, "PATCH", f"/users/{own}", 403, csrf=csrf, json={"role": "owner"})
        for change in ({"role": "viewer"}, {"enabled": False}, {"password": PASSWORD + "!"}, {"name": "x"}):
            await ask(client, "PATCH", f"/users/{top['id']}", 403, csrf=csrf, json=change)
            await ask(program, "PATCH", f"/users/{top['id']}", 403, json=change)
        await ask(client, "POST", "/users", 201, csrf=csrf, json={**new, "role": "admin"})


async def test_the_last_owner_stays_one(server: ServerProcess) -> None:
    owner = await made(server, "only@example.com", "owner", "zenith")
    async with browser(server) as client:
        me = await login(client, owner, tenant="zenith")
        for change in ({"role": "admin"}, {"enabled": False}):
            told = await ask(client, "PATCH", f"/users/{me['id']}", 400, csrf=me["csrf"], json=change)
            assert "last owner" in told["detail"]
        assert "last owner" in (await ask(client, "DELETE", f"/users/{me['id']}", 400, csrf=me["csrf"]))["detail"]
        assert (await ask(client, "GET", "/me"))["id"] == me["id"]
    for words in (("set-role", owner, "viewer"), ("delete", owner, "--yes")):
        await asyncio.to_thread(run, server, *words, "--tenant", "zenith", password=None, code=1)


async def test_a_deleted_user_is_out_at_once_and_the_log_still_says_who_it_was(server: ServerProcess) -> None:
    owner = await made(server, "deletes@example.com", "owner")
    key = await asyncio.to_thread(key_of, server)
    body = {"email": "goes@example.com", "name": "Goes Away", "role": "operator", "password": PASSWORD}
    async with browser(server) as client, browser(server) as second, asking(server, key) as program:
        me = await login(client, owner)
        user = await ask(client, "POST", "/users", 201, csrf=me["csrf"], json=body)
        one = f"/users/{user['id']}"
        csrf = (await login(second, "goes@example.com"))["csrf"]
        await ask(second, "DELETE", f"/users/{me['id']}", 403, csrf=csrf)
        await ask(program, "DELETE", f"/users/{me['id']}", 403)
        await ask(client, "DELETE", one, 403)
        await ask(client, "DELETE", one, 204, csrf=me["csrf"])
        await ask(second, "GET", "/me", 401)
        await login(second, "goes@example.com", status=401)
        for method, more in (("GET", {}), ("DELETE", {}), ("PATCH", {"json": {"name": "x"}})):
            await ask(client, method, one, 404, csrf=me["csrf"], **more)
        assert "goes@" not in repr(await ask(client, "GET", "/users"))
        log = (await ask(client, "GET", "/audit?limit=20"))["entries"]
        deed = next(each for each in log if each["action"] == "user.deleted")
        assert deed["subject"] == f"user:{user['id']}"
        assert deed["detail"] == {
            "asked": deed["number"] - 1,
            "email": "goes@example.com",
            "name": "Goes Away",
            "role": "operator",
        }
        assert "user:goes@example.com" in {each["actor"] for each in log}, "what was done stays his"
        assert (await ask(client, "POST", "/users", 201, csrf=me["csrf"], json=body))["id"] != user["id"]
    words = ("delete", "goes@example.com", "--tenant", "acme")
    await asyncio.to_thread(run, server, *words, password="n", code=1)
    await asyncio.to_thread(run, server, *words, "--yes", password=None)
    await asyncio.to_thread(run, server, *words, "--yes", password=None, code=1)


async def test_nothing_of_another_tenant_is_there_in_any_operation(server: ServerProcess) -> None:
    stranger, ours = (
        await made(server, "walks@example.com", "owner", "zenith"),
        await made(server, "o@example.com", "owner"),
    )
    call_id = await asyncio.to_thread(a_call, server)
    async with browser(server) as client, browser(server) as second:
        me = await login(second, ours)
        hook = {"url": "https://hooks.example.com/"}
        endpoint = (await ask(second, "POST", "/webhooks", 201, csrf=me["csrf"], json=hook))["id"]
        headers = {"X-CSRF-Token": (await login(client, stranger, tenant="zenith"))["csrf"]}
        ids = {"id": call_id, "endpoint": endpoint, "user": me["id"], "session": me["session"]}
        async with client.get("/api/v1/openapi.json") as answer:
            paths = (await answer.json())["paths"]
        found = 0
        for path, methods in paths.items():
            names = re.findall(r"{(\w+)}", path)
            filled = re.sub(r"{(\w+)}", lambda name: ids.get(name[1], ID), path)
            for method in methods if names else ():
                body = None if method in ("get", "delete") else BODIES.get(path.rpartition("/")[2], {})
                async with client.request(method, filled, json=body, headers={**headers, "If-Match": "*"}) as answer:
                    assert answer.status == 404, (method, path, answer.status, await answer.text())
                found += 1
        assert found > 15
        assert (await ask(second, "GET", f"/webhooks/{endpoint}"))["id"] == endpoint
        assert (await ask(second, "GET", "/me"))["session"] == me["session"]


async def test_another_tenants_users_keys_and_log_are_not_there(server: ServerProcess) -> None:
    theirs = await made(server, "theirs@example.com", "owner", "zenith")
    ours = await made(server, "ours@example.com", "owner")
    async with browser(server) as client, browser(server) as second:
        other, me = await login(client, theirs, tenant="zenith"), await login(second, ours)
        await ask(client, "GET", f"/users/{me['id']}", 404)
        await ask(client, "PATCH", f"/users/{me['id']}", 404, csrf=other["csrf"], json={"role": "viewer"})
        await asyncio.to_thread(key_of, server)
        assert (await ask(client, "GET", "/keys"))["keys"] == []
        keys = (await ask(second, "GET", "/keys"))["keys"]
        assert keys
        assert not any("digest" in each for each in keys)
        told = repr((await ask(client, "GET", "/users"), await ask(client, "GET", "/audit")))
        assert "ours@" not in told


async def test_a_key_reads_and_writes_users_with_the_scope_alone(server: ServerProcess) -> None:
    reads = await asyncio.to_thread(key_of, server, "acme", "users:read")
    async with asking(server, reads) as program:
        await get(program, "/users")
        await ask(program, "POST", "/users", 403, json={"email": "x@example.com", "role": "viewer"})


def test_the_command_line_lists_what_it_made_and_takes_no_password_as_an_argument(server: ServerProcess) -> None:
    words = ("--tenant", "acme")
    run(server, "create", "cli@example.com", *words, "--role", "viewer")
    assert "cli@example.com" in run(server, "list", *words, password=None)
    assert '"role": "viewer"' in run(server, "list", *words, "--json", password=None)
    run(server, "create", "short@example.com", *words, "--role", "viewer", password="short", code=1)
    run(server, "create", "none@example.com", *words, "--role", "viewer", password="", code=1)
    run(server, "create", "king@example.com", *words, "--role", "king", code=1)
    run(server, "create", "arg@example.com", *words, "--role", "viewer", "--password", PASSWORD, code=2)
    run(server, "set-role", "nobody@example.com", "viewer", *words, password=None, code=1)
