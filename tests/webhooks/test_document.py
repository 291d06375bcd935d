"""The receiver of docs/webhooks.md works as it stands there, and the document says what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

from sipserver.store.database import Database
from sipserver.webhooks import delivery, outgoing, schedule
from sipserver.webhooks.outgoing import Outgoing
from sipserver.webhooks.settings import WebhookSettings

DOCUMENT = (Path(__file__).parents[2] / "docs/webhooks.md").read_text()


async def test_the_receiver_of_the_document(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], free_port: int
) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    hooks = Outgoing(database, WebhookSettings(allow_private=True))
    endpoint = await hooks.endpoints.create("acme", f"http://127.0.0.1:{free_port}/in")
    monkeypatch.setenv("WEBHOOK_SECRET", endpoint.secret)
    names: dict[str, Any] = {"__name__": "receiver"}
    exec(program, names)
    runner = web.AppRunner(names["app"], access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", free_port).start()
    try:
        attempt = await hooks.test(endpoint.id)
        assert (attempt.status, attempt.error) == (204, None)
        async with ClientSession() as client, client.post(endpoint.url, data=b"{}") as refused:
            assert refused.status == 400
    finally:
        await runner.cleanup()
        await hooks.stop()
    assert capsys.readouterr().out.splitlines() == [
        f"webhook.test {{'call_id': None, 'tenant': 'acme', 'at_ms': None, 'seq': None, "
        f"'fields': {{'endpoint': '{endpoint.id}'}}}}"
    ]


def test_figures_of_the_document() -> None:
    units = {"s": 1, "min": 60, "h": 3600}
    table = DOCUMENT.partition("| attempt | after |")[2].partition("\n\n")[0].replace("24 h each", "24 h, 24 h")
    told = [int(count) * units[unit] for count, unit in re.findall(r"(\d+) (s|min|h)\b", table)]
    assert tuple(told) == schedule.PAUSES_S
    assert f"up to {schedule.JITTER * 100:.0f} %" in DOCUMENT
    assert f"at most {schedule.RETRY_AFTER_MOST_S // 3600} h" in DOCUMENT
    assert f"Answer 2xx within {WebhookSettings().timeout_s:.0f} s" in DOCUMENT
    assert f"and {delivery.LEASE_SPARE_S:.0f} s)" in DOCUMENT
    assert f"`{outgoing.TEST}`" in DOCUMENT
