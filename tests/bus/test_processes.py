"""Commands between real processes."""

from __future__ import annotations

import asyncio
import sys
import uuid
from pathlib import Path

import pytest

from sipserver.bus.redis_bus import RedisBus
from sipserver.bus.settings import BusSettings
from sipserver.errors import NotFound, RemoteError
from tests.bus.conftest import until
from tests.servers.redis import RedisServer

CELL = """
import asyncio, os, sys
from pathlib import Path
from sipserver.bus import table
from sipserver.bus.settings import BusSettings
from sipserver.errors import Draining

async def handle(verb, arguments):
    if verb == "refuse":
        raise Draining("not now")
    return {"pid": os.getpid(), "verb": verb, **arguments}

async def main(url, prefix, spool):
    bus = table.make(BusSettings(url=url, prefix=prefix, spool=Path(spool), lease_s=1), node="one", run="cell")
    await bus.open()
    await bus.commands.serve("run:cell", handle)
    await bus.leases.hold("run/cell", {})
    await bus.leases.hold("call/abc", {"run": "cell", "tenant": "acme"})
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_command_reaches_the_process_that_has_the_call_until_it_dies(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    settings = BusSettings(url=redis_server.url, prefix=uuid.uuid4().hex, spool=tmp_path, lease_s=1)
    arguments = (settings.url, settings.prefix, str(tmp_path))
    cell = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CELL, *arguments), stdout=asyncio.subprocess.DEVNULL
    )
    asker = RedisBus(settings, node="one", run="gateway")
    await asker.open()

    async def there() -> bool:
        return await asker.leases.get("call/abc") is not None

    await until(there)
    expected = {"pid": cell.pid, "verb": "status", "call_id": "abc", "more": True}
    assert await asker.commands.ask("call:abc", "status", {"more": True}) == expected
    asked = [asker.commands.ask("run:cell", "status", {"number": number}) for number in range(50)]
    assert [answer["number"] for answer in await asyncio.gather(*asked)] == list(range(50))
    with pytest.raises(RemoteError, match="Draining: not now") as caught:
        await asker.commands.ask("call:abc", "refuse", {})
    assert (caught.value.retry, caught.value.http_code) == (True, 503)

    cell.kill()
    await cell.wait()
    with pytest.raises(NotFound):
        await asker.commands.ask("run:cell", "status", {})
    with pytest.raises(NotFound):
        await asker.commands.ask("call:abc", "status", {})

    async def forgotten() -> bool:
        return await asker.leases.find("") == {}

    await until(forgotten)
    await asker.close()
