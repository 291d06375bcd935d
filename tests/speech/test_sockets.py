"""Where the protocol's sockets lie: paths of any length, rights, what was there before."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from sipserver.speech import sockets


async def _echo(uri: str) -> bytes:
    listening = sockets.listen(uri)
    if uri.endswith(":0"):
        uri = f"tcp://127.0.0.1:{listening.getsockname()[1]}"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    start = asyncio.start_server if uri.startswith("tcp") else asyncio.start_unix_server
    server = await start(answer, sock=listening)
    reader, writer = await sockets.connect(uri)
    writer.write(b"hello\n")
    told = await reader.read()
    writer.close()
    server.close()
    await server.wait_closed()
    return told


async def test_a_unix_socket_may_have_a_long_path(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30) / ("longer" * 20)
    folder.mkdir(parents=True)
    assert await _echo(f"unix://{folder}/speech.sock") == b"hello\n"


async def test_only_its_user_may_connect(tmp_path: Path) -> None:
    listening = sockets.listen(f"unix://{tmp_path}/speech.sock")
    assert stat.S_IMODE((tmp_path / "speech.sock").stat().st_mode) == 0o600
    listening.close()


async def test_what_a_dead_worker_left_is_replaced(tmp_path: Path) -> None:
    uri = f"unix://{tmp_path}/speech.sock"
    sockets.listen(uri).close()
    with pytest.raises(ConnectionRefusedError):
        await sockets.connect(uri)
    assert await _echo(uri) == b"hello\n"


async def test_who_finds_the_door_crowded_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "BACKLOG", 1)
    uri = f"unix://{tmp_path}/speech.sock"
    listening = sockets.listen(uri)
    connecting = [asyncio.create_task(sockets.connect(uri)) for _ in range(6)]
    done, waiting = await asyncio.wait(connecting, timeout=0.05)
    assert done
    assert waiting
    server = await asyncio.start_unix_server(lambda _reader, writer: writer.close(), sock=listening)
    for _, writer in await asyncio.gather(*connecting):
        writer.close()
    server.close()
    await server.wait_closed()


async def test_tcp() -> None:
    assert await _echo("tcp://127.0.0.1:0") == b"hello\n"


async def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sockets.listen(f"unix://{tmp_path}/none/speech.sock")
    with pytest.raises(FileNotFoundError):
        await sockets.connect(f"unix://{tmp_path}/{'none' * 30}/speech.sock")
