"""People for tests: made by the command line, logged in by HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from typer.testing import CliRunner

from sipserver.cli import users as users_cli
from tests.harness.server import ServerProcess

PASSWORD = "correct horse battery"


def run(server: ServerProcess, *words: str, password: str | None = PASSWORD, code: int = 0) -> str:
    line = None if password is None else f"{password}\n"
    done = CliRunner().invoke(users_cli.app, [*words, "--config", str(server.settings_file)], input=line)
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


async def made(server: ServerProcess, email: str, role: str, tenant: str = "acme") -> str:
    words = ("create", email, "--tenant", tenant, "--role", role, "--name", email.partition("@")[0])
    await asyncio.to_thread(run, server, *words)
    return email


@asynccontextmanager
async def browser(server: ServerProcess, **headers: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A client that keeps cookies, also those of an address without a name."""
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{server.http_port}", cookie_jar=jar, headers=headers) as client:
        yield client


async def ask(
    client: aiohttp.ClientSession, method: str, path: str, status: int = 200, *, csrf: str = "", **more: Any
) -> Any:
    headers = {**({"X-CSRF-Token": csrf} if csrf else {}), **more.pop("headers", {})}
    async with client.request(method, f"/api/v1{path}", headers=headers, allow_redirects=False, **more) as answer:
        text = await answer.text()
        assert answer.status == status, (method, path, answer.status, text)
        return await answer.json(content_type=None) if text else None


async def login(
    client: aiohttp.ClientSession,
    email: str,
    password: str = PASSWORD,
    tenant: str = "acme",
    status: int = 200,
    **more: Any,
) -> Any:
    body = {"tenant": tenant, "email": email, "password": password}
    return await ask(client, "POST", "/login", status, json=body, **more)
