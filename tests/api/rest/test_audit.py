"""What programs did stands in the audit log, whole; what they only looked at in passing does not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sipserver.cli import audit as audit_cli
from sipserver.cli import keys as keys_cli
from tests.api.rest.test_calls import OTHER, PLAN, a_call, asking, create, get, key_of
from tests.harness.server import ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    made = ServerProcess(tmp_path_factory.mktemp("audit"), {"acme.yaml": PLAN, "zenith.yaml": OTHER})
    yield made.start()
    assert made.stop() == 0


def entries(server: ServerProcess, tenant: str) -> list[dict[str, Any]]:
    """The oldest first."""
    words = ["list", "--tenant", tenant, "--json", "--limit", "500", "--config", str(server.settings_file)]
    listed = CliRunner().invoke(audit_cli.app, words)
    assert listed.exit_code == 0, listed.output
    found = (
        [json.loads(line) for line in listed.output.splitlines()]
        if listed.output[:1] == "{"
        else json.loads(listed.output)
    )
    return sorted(found, key=lambda entry: int(entry["number"]))


async def test_what_is_done_with_a_key_is_kept_with_the_key(server: ServerProcess) -> None:
    key = await asyncio.to_thread(key_of, server)
    key_id = key.split("_")[1]
    call_id = await asyncio.to_thread(a_call, server)
    async with asking(server, key) as client:
        await get(client, "/calls")
        await get(client, f"/calls/{call_id}")
        await get(client, f"/calls/{call_id}/transcript")
        async with client.get(f"/api/v1/calls/{call_id}/recording") as answer:
            assert answer.status == 200
        await create(client, 404, to="sip:1@127.0.0.1:9", flow="nowhere")
        async with client.delete(f"/api/v1/calls/{call_id}") as answer:
            assert answer.status == 204
    config = ["--config", str(server.settings_file)]
    revoked = await asyncio.to_thread(CliRunner().invoke, keys_cli.app, ["revoke", key_id, *config])
    assert revoked.exit_code == 0
    found = await asyncio.to_thread(entries, server, "acme")
    assert [(each["actor"], each["action"], each["subject"]) for each in found] == [
        ("operator", "key.created.asked", "key"),
        ("operator", "key.created", f"key:{key_id}"),
        (f"key:{key_id}", "transcript.read", f"call:{call_id}"),
        (f"key:{key_id}", "recording.read", f"call:{call_id}"),
        (f"key:{key_id}", "call.created.asked", "call"),
        (f"key:{key_id}", "call.created.failed", "call"),
        (f"key:{key_id}", "call.ended.asked", f"call:{call_id}"),
        (f"key:{key_id}", "call.ended", f"call:{call_id}"),
        ("operator", "key.revoked.asked", f"key:{key_id}"),
        ("operator", "key.revoked", f"key:{key_id}"),
    ]
    assert found[2]["source"] == "127.0.0.1"
    assert [each["detail"] for each in found[4:8]] == [
        {"flow": "nowhere"},
        {"asked": 5, "status": 404},
        {},
        {"asked": 7},
    ]
    verified = await asyncio.to_thread(CliRunner().invoke, audit_cli.app, ["verify", *config])
    assert verified.exit_code == 0, verified.output


def test_a_server_does_not_start_with_a_secret_that_cannot_continue_its_log(tmp_path: Path) -> None:
    """Otherwise every change would be refused one by one, and nobody would know why."""
    secret = tmp_path / "audit.secret"
    made = ServerProcess(tmp_path, {"acme.yaml": PLAN}, {"audit": {"secret_file": str(secret)}})
    made.start()
    key_of(made)
    assert made.stop() == 0
    right = secret.read_text()
    secret.write_text("f" * 64)
    with pytest.raises(AssertionError, match="sealed with another secret"):
        made.start()
    assert "Traceback" not in made.log()
    secret.write_text(right)
    made.start()
    assert made.stop() == 0
