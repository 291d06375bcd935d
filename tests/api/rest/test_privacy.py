"""What is kept about a caller is fetched and erased, by REST and on the terminal, at a real server."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sipserver.cli import privacy as privacy_cli
from sipserver.errors import CallerError
from tests.api.rest.test_calls import PLAN, a_call, asking, get, key_of, post
from tests.fakes.until import until
from tests.harness.records import records
from tests.harness.server import ServerProcess


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    plan = PLAN.replace("say: Good day.", "wait: 1")
    made = ServerProcess(tmp_path, {"acme.yaml": plan}, {"retention": {"sweep_s": 0.5}})
    yield made.start()
    assert made.stop() == 0
    assert "Traceback" not in made.log()


async def test_a_caller_is_given_and_then_forgotten(server: ServerProcess) -> None:
    call_id = await asyncio.to_thread(a_call, server)
    recording = Path(records(server.database)[0].recording)
    plain = await asyncio.to_thread(key_of, server)
    keeper = await asyncio.to_thread(key_of, server, "acme", "privacy:write", "calls:read", "audit:read")
    async with asking(server, plain) as client:
        await post(client, "/api/v1/privacy/erase", 403, number="phone")
    async with asking(server, keeper) as client:
        async with client.post("/api/v1/privacy/export", json={"number": "phone"}) as answer:
            assert (answer.status, answer.content_type) == (200, "application/zip")
            with zipfile.ZipFile(io.BytesIO(await answer.read())) as archive:
                names = {f"calls/{call_id}.json", f"recordings/{call_id}.wav", "manifest.json"}
                assert set(archive.namelist()) == names
                counts = {"calls": 1, "recordings": 1, "elsewhere": 0, "running": 0}
                assert json.loads(archive.read("manifest.json")) == counts
        assert "number" in (await post(client, "/api/v1/privacy/erase", 400, number='"'))["detail"]
        for verb in ("erase", "export"):
            problem = await post(client, f"/api/v1/privacy/{verb}", 400, number="030123456")
            assert "of which country is the number?" in problem["detail"]
            problem = await post(client, f"/api/v1/privacy/{verb}", 400, number="030123456", country="XX")
            assert "there is no country 'XX'" in problem["detail"]
        told = await post(client, "/api/v1/privacy/erase", 200, number="phone")
        assert (told["calls"], told["files"], told["running"]) == (1, 1, 0)
        await get(client, f"/calls/{call_id}", 404)
        entries = (await get(client, "/audit"))["entries"]
        assert {"privacy.exported", "privacy.erased"} <= {entry["action"] for entry in entries}
        assert '"phone"' not in str(entries)
    await until(lambda: not recording.exists(), "the recording's deletion")


async def test_on_the_terminal(server: ServerProcess, tmp_path: Path) -> None:
    await asyncio.to_thread(a_call, server)
    config = ["--tenant", "acme", "--config", str(server.settings_file)]

    def run(*words: str, answer: str = "") -> str:
        done = CliRunner().invoke(privacy_cli.app, [*words, *config], input=answer, catch_exceptions=False)
        return f"{done.exit_code} {done.output}"

    file = tmp_path / "given.zip"
    assert "1 calls, 1 sound files" in await asyncio.to_thread(run, "export", "phone", "--out", str(file))
    assert zipfile.is_zipfile(file)
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(CallerError, match=r"none/given\.zip: No such file or directory"):
        await asyncio.to_thread(run, "export", "phone", "--out", str(tmp_path / "none" / "given.zip"))
    for words in (["030123456"], ["030123456", "--country", "Germany"]):
        with pytest.raises(CallerError, match="country"):
            await asyncio.to_thread(run, "erase", *words, "--yes")
    assert (await asyncio.to_thread(run, "erase", "phone", answer="n\n")).startswith("1 ")
    assert "1 calls erased" in await asyncio.to_thread(run, "erase", "phone", "--yes")
    assert records(server.database) == []
