"""How an operator's command reaches a single server."""

from __future__ import annotations

import asyncio
import json
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sipserver import console
from sipserver.errors import CallerError, InternalError, NotFound, RemoteError
from sipserver.settings import Settings


@pytest.fixture
def settings() -> Iterator[Settings]:
    with tempfile.TemporaryDirectory(prefix="console-") as folder:  # a socket's path holds 107 bytes (unix(7))
        yield Settings.model_validate({"fleet": {"runtime": f"{folder}/run"}, "sip": {"port": 5099}})


async def handler(verb: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    match verb:
        case "sing":
            return {"song": arguments["of"]}
        case "sleep":
            await asyncio.sleep(10)
        case "break":
            raise ZeroDivisionError
    raise NotFound(f"there is no {verb}")


async def test_questions_and_answers(settings: Settings) -> None:
    async with console.listening(settings, handler):
        path = console.socket_path(settings)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.name == "server-5099.sock"
        assert await console.ask(settings, "sing", {"of": "joy"}) == {"song": "joy"}
        with pytest.raises(RemoteError, match="there is no dance") as refusal:
            await console.ask(settings, "dance", {})
        assert (refusal.value.name, refusal.value.http_code) == ("NotFound", 404)
        with pytest.raises(RemoteError) as broken:
            await console.ask(settings, "break", {})
        assert broken.value.name == "InternalError"
        with pytest.raises(InternalError, match="does not answer within"):
            await console.ask(settings, "sleep", {}, timeout_s=0.05)
    assert not path.exists()


@pytest.mark.parametrize("line", [b"nonsense", b"[]", b'{"do": "sing"}', b'{"do": "sing", "with": 7}', b"\xff"])
async def test_what_is_not_understood_is_the_askers_fault_and_the_next_line_is_answered(
    settings: Settings, line: bytes
) -> None:
    async with console.listening(settings, handler):
        reader, writer = await asyncio.open_unix_connection(str(console.socket_path(settings)))
        writer.write(line + b"\n")
        assert json.loads(await reader.readline())["error"]["name"] == CallerError.__name__
        writer.write(b'{"do": "sing", "with": {"of": "joy"}}\n')
        assert json.loads(await reader.readline()) == {"answer": {"song": "joy"}}
        writer.close()


async def test_a_socket_that_was_left_behind_is_replaced(settings: Settings) -> None:
    path = console.socket_path(settings)
    path.parent.mkdir()
    path.write_text("left behind")
    with pytest.raises(InternalError, match="no server answers"):
        await console.ask(settings, "sing", {})
    async with console.listening(settings, handler):
        assert await console.ask(settings, "sing", {"of": "joy"}) == {"song": "joy"}


@pytest.mark.parametrize("runtime", ["/proc/nowhere", f"/tmp/{'long/' * 30}"], ids=["not writable", "too long"])
async def test_a_server_that_cannot_have_the_socket_runs_without(runtime: str, tmp_path: Path) -> None:
    folder = runtime.replace("/tmp", str(tmp_path))
    settings = Settings.model_validate({"fleet": {"runtime": folder}})
    async with console.listening(settings, handler):
        with pytest.raises(InternalError, match="no server answers"):
            await console.ask(settings, "sing", {})
