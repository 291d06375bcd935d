"""Usage of a real server's calls: by call, by day, by month, by REST and on the terminal; and of one that is killed."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from typer.testing import CliRunner

from sipserver.cli import usage as usage_cli
from tests.api.rest.test_calls import OTHER, PLAN, a_call, asking, get, key_of
from tests.fakes.until import wait_until
from tests.harness.phone import Phone, tone
from tests.harness.records import records
from tests.harness.server import ServerProcess

PRICES = {
    "currency": "CHF",
    "list": [
        {"part": "call.inbound", "price": "0.06", "per": "minute", "rounding": "60/60"},
        {"part": "call.inbound", "price": "0.12", "per": "minute", "rounding": "60/60", "tenant": "zenith"},
        {"part": "recording", "price": 0.003, "per": "second"},
    ],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    made = ServerProcess(
        tmp_path_factory.mktemp("usage"),
        {"acme.yaml": PLAN, "zenith.yaml": OTHER},
        {"prices": PRICES, "http": {"host": "127.0.0.1", "api_per_s": 500}},
    )
    yield made.start()
    made.stop()
    assert "Traceback" not in made.log()


async def test_calls_cost_what_they_used_and_sums_are_theirs(server: ServerProcess) -> None:
    key, other = await asyncio.to_thread(key_of, server), await asyncio.to_thread(key_of, server, "zenith")
    calls = [await asyncio.to_thread(a_call, server) for _ in range(2)]
    foreign = await asyncio.to_thread(a_call, server, "zenith")
    month = f"{datetime.now(UTC):%Y-%m}"
    async with asking(server, key) as client:
        total = Decimal(0)
        for call_id in calls:
            told = await get(client, f"/calls/{call_id}/usage")
            lines = {line["part"]: line for line in told["lines"]}
            assert (told["final"], told["currency"]) == (True, "CHF")
            assert set(lines) == {"call.inbound", "recording", "recording.size"}
            spoken = lines["call.inbound"]
            assert 0 < Decimal(spoken["quantity"]) < 60
            assert (spoken["billed"], spoken["unit"], spoken["cost"]) == ("60", "s", "0.060000")
            heard = Decimal(lines["recording"]["quantity"])
            assert Decimal(lines["recording"]["cost"]) == heard * Decimal("0.003")
            assert int(lines["recording.size"]["quantity"]) == heard * 64_000 + 44
            assert lines["recording.size"]["price"] is None
            assert Decimal(told["total"]) == sum(Decimal(line["cost"]) for line in told["lines"])
            total += Decimal(told["total"])
        by_day = await get(client, f"/usage?from={month}-01&to=2100-01-01T00:00:00Z&by=day", 400)
        assert "days at most" in by_day["detail"]
        year, number = map(int, month.split("-"))
        after = f"{year + number // 12}-{number % 12 + 1:02}-01T00:00:00Z"
        whole = f"from={month}-01T00:00:00Z&to={after}"
        by_day, by_part = await get(client, f"/usage?{whole}&by=day"), await get(client, f"/usage?{whole}")
        assert Decimal(by_day["total"]) == Decimal(by_part["total"]) == total
        assert {len(group["day"]) for group in by_day["groups"]} == {10}
        assert [group["day"] for group in by_part["groups"]] == [""]
        export = await get(client, f"/usage/export?month={month}")
        assert (export["tenant"], Decimal(export["total"])) == ("acme", total)
        for lines_of, count in (("sums", 3), ("calls", 6)):
            async with client.get(f"/api/v1/usage/export?month={month}&format=csv&lines={lines_of}") as answer:
                assert (answer.status, answer.content_type) == (200, "text/csv")
                table = list(csv.DictReader(io.StringIO(await answer.text())))
            assert (len(table), sum(Decimal(line["cost"]) for line in table)) == (count, total)
        await get(client, f"/usage/export?month={month}&lines=calls", 400)
        for wrong in ("2026-13", "0001-01", "9999-12"):
            await get(client, f"/usage/export?month={wrong}", 422)
        await get(client, f"/usage?from={month}-02T00:00:00Z&to={month}-01T00:00:00Z", 400)
        await get(client, f"/calls/{foreign}/usage", 404)
    async with asking(server, other) as client:
        told = await get(client, f"/calls/{foreign}/usage")
        assert told["total"] == "0.120000"
        await get(client, f"/calls/{calls[0]}/usage", 404)
    words = ["export", "--tenant", "acme", "--month", month, "--config", str(server.settings_file)]
    for more in ([], ["--calls"]):
        made = await asyncio.to_thread(CliRunner().invoke, usage_cli.app, [*words, *more])
        assert made.exit_code == 0, made.output
        table = list(csv.DictReader(io.StringIO(made.stdout)))
        assert sum(Decimal(line["cost"]) for line in table) == total
        assert made.stderr.strip() == f"acme {month}: {total} CHF"
    made = await asyncio.to_thread(CliRunner().invoke, usage_cli.app, [*words, "--format", "json"])
    assert Decimal(json.loads(made.stdout)["total"]) == total


async def test_a_key_without_the_scope_learns_nothing(server: ServerProcess) -> None:
    key = await asyncio.to_thread(key_of, server, "acme", "calls:read")
    async with asking(server, key) as client:
        refusal = await get(client, "/usage/export?month=2026-11", 403)
        assert "usage:read" in refusal["detail"]


async def test_a_call_whose_server_is_killed_is_charged_for_what_is_known(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    server = ServerProcess(tmp_path_factory.mktemp("killed"), {"acme.yaml": PLAN}, {"prices": PRICES}).start()
    key = await asyncio.to_thread(key_of, server)

    def call() -> str:
        with Phone(server.sip_port) as phone:
            assert phone.invite("echo").code == 200
            phone.start_media()
            phone.say(tone(500))
            wait_until(lambda: phone.heard().any(), "the echo")
            wait_until(
                lambda: any("media.rtp" in row.kinds for row in records(server.database, phone.call_id)),
                "the first statistics in the record",
            )
            server.kill()
            return phone.call_id

    sip_call_id = await asyncio.to_thread(call)
    await asyncio.to_thread(server.start)
    try:
        (row,) = records(server.database, sip_call_id)
        assert row.reason == "crash"
        async with asking(server, key) as client:
            told = await get(client, f"/calls/{row.call_id}/usage")
            lines = {line["part"]: line for line in told["lines"]}
            assert told["final"]
            assert Decimal(lines["call.inbound"]["quantity"]) > 0
            assert lines["call.inbound"]["cost"] == "0.060000"
            assert Decimal(lines["recording"]["quantity"]) > 0
            assert told == await get(client, f"/calls/{row.call_id}/usage")
    finally:
        server.stop()
