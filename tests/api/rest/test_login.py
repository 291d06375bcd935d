"""People at a real server: they log in and out, and nobody else uses their sessions."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from tests.api.rest.people import PASSWORD, ask, browser, login, made, run
from tests.api.rest.test_audit import entries
from tests.api.rest.test_calls import OTHER, PLAN, asking, get, key_of
from tests.harness.server import ServerProcess

LOGIN = {"per_address_per_s": 1000}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    made = ServerProcess(tmp_path_factory.mktemp("login"), {"acme.yaml": PLAN, "zenith.yaml": OTHER}, {"login": LOGIN})
    yield made.start()
    assert made.stop() == 0
    assert "Traceback" not in made.log()


def change(server: ServerProcess, statement: str, *values: Any) -> None:
    with sqlite3.connect(server.database, timeout=5) as database:
        database.execute(statement, values)


def session_of(client: aiohttp.ClientSession) -> str:
    return next(cookie.value for cookie in client.cookie_jar if cookie.key == "sipserver-session")


async def test_logging_in_and_out(server: ServerProcess) -> None:
    email = await made(server, "Anna@Example.com", "owner")
    async with browser(server) as client:
        me = await login(client, email.upper())
        assert (me["kind"], me["tenant"], me["name"], me["role"]) == ("user", "acme", "anna@example.com", "owner")
        assert "users:write" in me["permissions"]
        assert me == await ask(client, "GET", "/me")
        assert (await ask(client, "GET", "/calls"))["calls"] == []
        await ask(client, "POST", "/logout", 204, csrf=me["csrf"])
        await ask(client, "GET", "/me", 401)
    found = await asyncio.to_thread(entries, server, "acme")
    acts = [(each["actor"], each["action"]) for each in found]
    assert acts[-3:] == [
        ("user:anna@example.com", "user.logged_in"),
        ("user:anna@example.com", "user.logged_out.asked"),
        ("user:anna@example.com", "user.logged_out"),
    ]


async def test_who_changes_a_dialplan_is_named_in_its_history(server: ServerProcess) -> None:
    email = await made(server, "planner@example.com", "admin")
    async with browser(server) as client:
        me = await login(client, email)
        for name in ("first", "second"):
            headers = {"If-Match": "*", "Content-Type": "application/yaml"}
            text = f"{PLAN}# {name}\n"
            await ask(client, "PUT", "/dialplans/acme", csrf=me["csrf"], headers=headers, data=text)
        versions = (await ask(client, "GET", "/dialplans/acme/history"))["versions"]
        headers = {"If-Match": "*"}
        body = {"version": versions[0]["version"] - 1}
        await ask(client, "POST", "/dialplans/acme/rollback", csrf=me["csrf"], headers=headers, json=body)
        newest = (await ask(client, "GET", "/dialplans/acme/history"))["versions"][:3]
        assert [version["by"] for version in newest] == ["user:planner@example.com"] * 3


async def test_the_cookie_is_told_to_browsers_as_it_must_be(server: ServerProcess) -> None:
    email = await made(server, "cookie@example.com", "viewer")
    body = {"tenant": "acme", "email": email, "password": PASSWORD}
    async with browser(server) as client:
        async with client.post("/api/v1/login", json=body) as answer:
            plain = answer.headers["Set-Cookie"]
        assert plain.startswith("sipserver-session=")
        assert "HttpOnly" in plain
        assert "SameSite=Lax" in plain
        assert "Secure" not in plain
        async with client.post("/api/v1/login", json=body, headers={"X-Forwarded-Proto": "https"}) as answer:
            safe = answer.headers["Set-Cookie"]
        assert safe.startswith("__Host-sipserver-session=")
        assert "Secure" in safe
        assert "Path=/" in safe
        assert "Domain" not in safe
    token = safe.partition("=")[2].partition(";")[0]
    with sqlite3.connect(server.database, timeout=5) as database:
        assert token not in repr(database.execute("SELECT * FROM sessions").fetchall())


async def test_who_is_wrong_learns_nothing(server: ServerProcess) -> None:
    email = await made(server, "known@example.com", "viewer")
    disabled = await made(server, "disabled@example.com", "viewer")
    await asyncio.to_thread(run, server, "disable", disabled, "--tenant", "acme", password=None)
    words = ("create", "provider@example.com", "--tenant", "acme", "--role", "viewer", "--without-password")
    await asyncio.to_thread(run, server, *words, password=None)
    async with browser(server) as client:
        told = [
            await login(client, email, "wrong password of hers", status=401),
            await login(client, "unknown@example.com", status=401),
            await login(client, email, tenant="nobody", status=401),
            await login(client, disabled, status=401),
            await login(client, "provider@example.com", status=401),
            await login(client, "no address", status=401),
        ]
        assert all(each == told[0] for each in told)
        assert not list(client.cookie_jar)
        await login(client, email + "\x00", status=422)
    refused = [json.loads(line) for line in server.log().splitlines() if "a login was refused" in line]
    assert refused
    assert {(line["room"], line["level"]) for line in refused} == {("api", "info")}


async def test_a_session_that_somebody_else_chose_is_not_taken(server: ServerProcess) -> None:
    email = await made(server, "fixed@example.com", "viewer")
    chosen = {"Cookie": "sipserver-session=chosen-by-somebody-else"}
    async with browser(server) as client:
        await login(client, email, headers=chosen)
        assert session_of(client) != "chosen-by-somebody-else"
    async with browser(server) as other:
        await ask(other, "GET", "/me", 401, headers=chosen)


async def test_logging_in_again_ends_the_session_before(server: ServerProcess) -> None:
    email = await made(server, "again@example.com", "viewer")
    async with browser(server) as client:
        await login(client, email)
        before = session_of(client)
        await login(client, email)
        assert session_of(client) != before
    async with browser(server) as other:
        await ask(other, "GET", "/me", 401, headers={"Cookie": f"sipserver-session={before}"})


async def test_a_page_of_somebody_else_does_nothing(server: ServerProcess) -> None:
    email = await made(server, "csrf@example.com", "viewer")
    own = f"http://127.0.0.1:{server.http_port}"
    async with browser(server) as client, browser(server) as second:
        me, other = await login(client, email), await login(second, email)
        assert me["csrf"] != other["csrf"]
        for csrf in ("", "wrong", "\u00e4", other["csrf"]):
            assert "X-CSRF-Token" in (await ask(client, "DELETE", "/sessions", 403, csrf=csrf))["detail"]
        for origin in ("https://evil.example", "null", f"{own}.evil.example", ""):
            told = await ask(client, "DELETE", "/sessions", 403, csrf=me["csrf"], headers={"Origin": origin})
            assert "origin" in told["detail"]
            await login(second, email, status=403, headers={"Origin": origin})
        assert len((await ask(client, "GET", "/sessions"))["sessions"]) == 2
        await ask(client, "DELETE", "/sessions", 204, csrf=me["csrf"], headers={"Origin": own})
        assert [each["current"] for each in (await ask(client, "GET", "/sessions"))["sessions"]] == [True]
        await ask(second, "GET", "/me", 401)


async def test_sessions_are_listed_and_ended_by_their_user_alone(server: ServerProcess) -> None:
    email, stranger = (
        await made(server, "list@example.com", "viewer"),
        await made(server, "stranger@example.com", "owner"),
    )
    async with browser(server, **{"User-Agent": "a telephone"}) as client, browser(server) as second:
        me = await login(client, email)
        listed = (await ask(client, "GET", "/sessions"))["sessions"]
        assert [(each["agent"], each["source"], each["current"]) for each in listed] == [
            ("a telephone", "127.0.0.1", True)
        ]
        other = await login(second, stranger)
        await ask(second, "DELETE", f"/sessions/{listed[0]['id']}", 404, csrf=other["csrf"])
        await ask(client, "DELETE", f"/sessions/{listed[0]['id']}", 204, csrf=me["csrf"])
        await ask(client, "GET", "/me", 401)


async def test_sessions_end_when_they_are_idle_or_old(server: ServerProcess) -> None:
    email = await made(server, "idle@example.com", "viewer")
    for column in ("seen_at", "expires_at"):
        async with browser(server) as client:
            me = await login(client, email)
            change(server, f"UPDATE sessions SET {column} = '2020-01-01 00:00:00.000000' WHERE id = ?", me["session"])
            await ask(client, "GET", "/me", 401)


async def test_a_new_password_ends_all_sessions_but_that_which_it_begins(server: ServerProcess) -> None:
    email, new = await made(server, "change@example.com", "viewer"), "another horse battery"
    async with browser(server) as client, browser(server) as second:
        me = await login(client, email)
        await login(second, email)
        body = {"current": PASSWORD, "new": new}
        await ask(client, "POST", "/me/password", 403, csrf=me["csrf"], json={**body, "current": "not this one"})
        await ask(client, "POST", "/me/password", 400, csrf=me["csrf"], json={**body, "new": "short"})
        fresh = await ask(client, "POST", "/me/password", csrf=me["csrf"], json=body)
        assert fresh["session"] != me["session"]
        assert (await ask(client, "GET", "/me"))["session"] == fresh["session"]
        await ask(second, "GET", "/me", 401)
        await login(second, email, status=401)
        await login(second, email, new)


async def test_whoever_is_disabled_or_given_a_new_password_is_out_at_once(server: ServerProcess) -> None:
    email = await made(server, "out@example.com", "viewer")
    words = ("--tenant", "acme")
    async with browser(server) as client:
        await login(client, email)
        await asyncio.to_thread(run, server, "reset-password", email, *words)
        await ask(client, "GET", "/me", 401)
        await login(client, email)
        await asyncio.to_thread(run, server, "set-role", email, "auditor", *words, password=None)
        assert (await ask(client, "GET", "/me"))["role"] == "auditor"
        await ask(client, "GET", "/calls", 403)
        await asyncio.to_thread(run, server, "disable", email, *words, password=None)
        await ask(client, "GET", "/me", 401)
        await login(client, email, status=401)
        await asyncio.to_thread(run, server, "enable", email, *words, password=None)
        await login(client, email)


async def test_an_account_is_locked_when_somebody_guesses_many_at_a_time(server: ServerProcess) -> None:
    email = await made(server, "guessed@example.com", "viewer")
    async with browser(server) as client:
        guesses = [login(client, email, f"guess number {number}", status=401) for number in range(20)]
        await asyncio.gather(*guesses)
        told = await login(client, email, status=401)
        assert told == await login(client, "unknown@example.com", status=401)
    with sqlite3.connect(server.database, timeout=5) as database:
        query = "SELECT failed, locked_until FROM users WHERE email = ?"
        failed, locked = database.execute(query, (email,)).fetchone()
    assert 10 <= failed < 20, "what comes while it is locked is not looked at"
    assert locked is not None
    found = await asyncio.to_thread(entries, server, "acme")
    assert {each["actor"] for each in found if each["action"] == "user.locked"} == {"system"}
    change(server, "UPDATE users SET locked_until = '2020-01-01 00:00:00.000000' WHERE email = ?", email)
    async with browser(server) as client:
        await login(client, email)


async def test_many_come_in_at_the_same_moment(server: ServerProcess) -> None:
    email = await made(server, "many@example.com", "viewer")

    async def come() -> str:
        async with browser(server) as client:
            return str((await login(client, email))["session"])

    came = await asyncio.gather(*(come() for _ in range(16)))
    assert len(set(came)) == 16


async def test_a_key_that_is_wrong_is_no_session(server: ServerProcess) -> None:
    email = await made(server, "both@example.com", "viewer")
    key = await asyncio.to_thread(key_of, server)
    async with browser(server) as client:
        await login(client, email)
        await ask(client, "GET", "/me", 401, headers={"Authorization": "Bearer sips_wrong"})
        assert (await ask(client, "GET", "/me", headers={"Authorization": f"Bearer {key}"}))["kind"] == "key"
    async with asking(server, key) as program:
        me = await get(program, "/me")
        assert (me["kind"], me["role"], me["csrf"]) == ("key", None, None)
        await get(program, "/sessions", 403)


async def test_an_address_that_tries_too_often_waits(tmp_path: Any) -> None:
    with ServerProcess(tmp_path, {"acme.yaml": PLAN}, {"login": {"per_address_per_s": 0.01}}) as slow:
        async with browser(slow) as client:
            for _ in range(10):
                await login(client, "a@example.com", status=401)
            await login(client, "a@example.com", status=429)
