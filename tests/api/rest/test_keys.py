"""API keys by REST: what a key may give on, how one takes the place of another, and what is noted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from tests.api.rest.test_audit import entries
from tests.api.rest.test_calls import OTHER, PLAN, asking, get, key_of
from tests.fakes.until import eventually
from tests.harness.server import ServerProcess

SCOPES = ("keys:read", "keys:write", "calls:read", "config:read")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, store: dict[str, Any]) -> Iterator[ServerProcess]:
    made = ServerProcess(tmp_path_factory.mktemp("keys"), {"acme.yaml": PLAN, "zenith.yaml": OTHER}, store)
    yield made.start()
    assert made.stop() == 0
    assert "Traceback" not in made.log()


async def post(client: aiohttp.ClientSession, path: str, status: int = 201, **body: Any) -> Any:
    async with client.post(f"/api/v1{path}", json=body) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json()


async def delete(client: aiohttp.ClientSession, key_id: str, status: int = 204) -> None:
    async with client.delete(f"/api/v1/keys/{key_id}") as answer:
        assert answer.status == status


async def is_good(server: ServerProcess, text: str) -> bool:
    async with asking(server, text) as client, client.get("/api/v1/calls") as answer:
        return answer.status == 200


async def test_a_key_gives_on_no_more_than_it_has(server: ServerProcess) -> None:
    async with asking(server, await asyncio.to_thread(key_of, server, "acme", *SCOPES)) as client:
        made = await post(client, "/keys", name="crm", scopes=["calls:read", "keys:write"])
        assert made["key"].startswith(f"sips_{made['id']}_")
        assert await is_good(server, made["key"])
        for scopes in (["calls:write"], ["calls:read", "dialplans:write"]):
            assert scopes[-1] in (await post(client, "/keys", 403, name="x", scopes=scopes))["detail"]
        wrong: list[dict[str, Any]] = [
            {"scopes": []},
            {"scopes": ["all"]},
            {"scopes": ["calls:read"], "name": "a\nb"},
            {},
        ]
        for body in wrong:
            await post(client, "/keys", 422, **{"name": "x", **body})
        listed = {key["id"]: key for key in (await get(client, "/keys"))["keys"]}
        assert listed[made["id"]]["scopes"] == ["calls:read", "keys:write"]
        assert made["key"] not in str(listed)
        async with asking(server, made["key"]) as lesser:
            await post(lesser, "/keys", 403, name="y", scopes=["config:read"])
            await get(lesser, "/keys", 403)


async def test_a_key_lives_no_longer_than_the_one_that_made_it(server: ServerProcess) -> None:
    soon, later = (datetime.now(UTC) + timedelta(hours=hours) for hours in (1, 2))
    async with asking(server, await asyncio.to_thread(key_of, server, "acme", *SCOPES)) as client:
        body: dict[str, Any] = {"name": "short", "scopes": list(SCOPES)}
        made = await post(client, "/keys", **body, expires_at=soon.isoformat())
        await post(client, "/keys", 400, **body, expires_at="2020-01-01T00:00:00Z")
        await post(client, "/keys", 422, **body, expires_at="9999-12-31T23:59:59-14:00")
        forever = await post(client, "/keys", **body)
        assert forever["expires_at"] is None
    async with asking(server, made["key"]) as client:
        assert (await get(client, "/me"))["expires_at"] == made["expires_at"]
        assert (await post(client, "/keys", **body))["expires_at"] == made["expires_at"]
        await post(client, "/keys", 403, **body, expires_at=later.isoformat())
        await post(client, f"/keys/{forever['id']}/rotate", 403)


async def test_a_key_is_rotated_and_the_old_one_is_good_for_the_grace(server: ServerProcess) -> None:
    async with asking(server, await asyncio.to_thread(key_of, server, "acme", *SCOPES)) as client:
        old = await post(client, "/keys", name="crm", scopes=["calls:read"])
        new = await post(client, f"/keys/{old['id']}/rotate", grace_s=600)
        assert (new["name"], new["scopes"], new["expires_at"]) == ("crm", ["calls:read"], None)
        assert await is_good(server, old["key"])
        assert await is_good(server, new["key"])
        listed = {key["id"]: key for key in (await get(client, "/keys"))["keys"]}
        assert datetime.fromisoformat(listed[old["id"]]["expires_at"]) > datetime.now(UTC)
        newest = await post(client, f"/keys/{new['id']}/rotate", grace_s=0)
        await eventually(lambda: is_good(server, new["key"]), lambda good: not good, "the end of the old one")
        assert await is_good(server, newest["key"])
        await post(client, f"/keys/{new['id']}/rotate", 409)
        await post(client, f"/keys/{newest['id']}/rotate", 422, grace_s=10**9)
        all_of_them = {key["id"] for key in (await get(client, "/keys?over=true"))["keys"]}
        assert new["id"] in all_of_them - {key["id"] for key in (await get(client, "/keys"))["keys"]}


async def test_a_key_with_less_does_not_get_hold_of_one_with_more(server: ServerProcess) -> None:
    more = (await asyncio.to_thread(key_of, server, "acme", "calls:write")).split("_")[1]
    async with asking(server, await asyncio.to_thread(key_of, server, "acme", *SCOPES)) as client:
        assert "calls:write" in (await post(client, f"/keys/{more}/rotate", 403))["detail"]


async def test_a_key_ends_itself_and_all_of_it_is_noted(server: ServerProcess) -> None:
    async with asking(server, await asyncio.to_thread(key_of, server, "acme", *SCOPES)) as client:
        own = await post(client, "/keys", name="own", scopes=["keys:write", "calls:read"])
        rotated = await post(client, f"/keys/{own['id']}/rotate")
        async with asking(server, rotated["key"]) as itself:
            await delete(itself, rotated["id"])
            await eventually(lambda: is_good(server, rotated["key"]), lambda good: not good, "the end of the key")
        await delete(client, "nothing", 404)
    noted = (await asyncio.to_thread(entries, server, "acme"))[-8:]
    assert [(each["action"], each["subject"]) for each in noted] == [
        ("key.created.asked", "key"),
        ("key.created", f"key:{own['id']}"),
        ("key.rotated.asked", f"key:{own['id']}"),
        ("key.rotated", f"key:{own['id']}"),
        ("key.revoked.asked", f"key:{rotated['id']}"),
        ("key.revoked", f"key:{rotated['id']}"),
        ("key.revoked.asked", "key:nothing"),
        ("key.revoked.failed", "key:nothing"),
    ]
    assert noted[1]["detail"] == {
        "asked": noted[0]["number"],
        "name": "own",
        "scopes": ["keys:write", "calls:read"],
    }
    assert noted[5]["actor"] == f"key:{rotated['id']}"
    assert own["key"] not in repr(noted)


async def test_nobody_elses_keys(server: ServerProcess) -> None:
    theirs = await asyncio.to_thread(key_of, server, "acme", "calls:read")
    key_id = theirs.split("_")[1]
    async with asking(server, await asyncio.to_thread(key_of, server, "zenith", *SCOPES)) as client:
        assert key_id not in {key["id"] for key in (await get(client, "/keys?over=true"))["keys"]}
        await delete(client, key_id, 404)
        await post(client, f"/keys/{key_id}/rotate", 404)
        await delete(client, "..%2Fkeys", 404)
    assert await is_good(server, theirs)


async def test_what_makes_keys_and_changes_dialplans_must_be_asked_for(server: ServerProcess) -> None:
    async with asking(server, await asyncio.to_thread(key_of, server)) as client:
        own = {key["id"]: key["scopes"] for key in (await get(client, "/keys"))["keys"]}
        assert not any({"keys:write", "dialplans:write"} <= set(scopes) for scopes in own.values())
        assert "keys:write" in (await post(client, "/keys", 403, name="x", scopes=["calls:read"]))["detail"]
