"""What is given to a person leaves nothing behind, and whoever reads it slowly keeps no other tenant waiting."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import aiohttp
import pytest
from aiohttp import web

from sipserver.api.rest import app
from sipserver.api.rest.access import Access
from sipserver.api.rest.privacy import PrivacyOperations
from sipserver.tenants.keys import ApiKey, Scope
from sipserver.tenants.principal import Principal
from sipserver.tenants.privacy import Given, Privacy
from tests.fakes.once import always

SIZE = 32 << 20
"""More than sockets keep."""


class Gives:
    """As `Privacy`: a file of SIZE bytes. begun: the tenants that asked, in their turn."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.names: list[str] = []

    async def export(self, tenant: str, number: str, file: BinaryIO, **_facts: str) -> Given:
        self.begun.append(tenant)
        await asyncio.to_thread(file.write, bytes(SIZE))
        self.names += os.listdir(tempfile.gettempdir())
        return Given(1, 1, 0, 0)


async def recognise(text: str) -> ApiKey:
    """The key is the tenant's name."""
    return ApiKey(text, text, text, frozenset({Scope.PRIVACY_WRITE}), "digest", datetime(2026, 1, 1, tzinfo=UTC))


async def note(who: Principal, deed: str, subject: str, source: str, detail: Mapping[str, Any] | None = None) -> int:
    return 1


@asynccontextmanager
async def giving(gives: Gives, stalled_s: float) -> AsyncIterator[aiohttp.ClientSession]:
    operations = PrivacyOperations(cast(Privacy, gives), stalled_s=stalled_s).operations()
    runner = web.AppRunner(app.application(Access(recognise, per_s=100), note, always, operations), shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
            yield client
    finally:
        await runner.cleanup()


@pytest.fixture(autouse=True)
def nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of temporary files is this test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


async def ask(client: aiohttp.ClientSession, tenant: str) -> aiohttp.ClientResponse:
    """Answered as soon as the first bytes come."""
    headers = {"Authorization": f"Bearer {tenant}"}
    answer = await client.post("/privacy/export", json={"number": "+4930123456"}, headers=headers)
    assert answer.status == 200
    return answer


async def test_one_tenants_slow_reader_keeps_itself_alone_waiting() -> None:
    gives = Gives()
    async with giving(gives, 60) as client:
        slow = await ask(client, "alpha")
        again = asyncio.create_task(ask(client, "alpha"))
        for _ in range(2):
            assert len(await (await ask(client, "beta")).read()) == SIZE
        assert gives.begun == ["alpha", "beta", "beta"]
        assert len(await slow.read()) == SIZE
        assert len(await (await again).read()) == SIZE
    assert gives.begun[3:] == ["alpha"]


async def test_who_takes_nothing_is_cut_off_and_has_another_try() -> None:
    gives = Gives()
    async with giving(gives, 0.1) as client:
        stalled = await ask(client, "alpha")
        again = await ask(client, "alpha")
        again.close()
        with pytest.raises(aiohttp.ClientPayloadError):
            await stalled.read()


async def test_what_is_given_has_no_name_in_any_folder() -> None:
    """So that it goes with a process that is killed."""
    gives = Gives()
    async with giving(gives, 60) as client:
        assert len(await (await ask(client, "alpha")).read()) == SIZE
    assert gives.begun == ["alpha"]
    assert gives.names == []
