"""What is too old goes, what is not stays, and the audit log proves it; in a database of either kind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sipserver.store.audit import AuditRows
from sipserver.store.database import Database
from sipserver.store.doomed import DoomedFiles
from sipserver.store.retention import Kept, RetentionRows
from sipserver.store.schema import audit, audit_heads, calls, events, webhook_endpoints, webhook_messages
from sipserver.store.settings import StoreSettings
from sipserver.store.webhook_rows import EndpointRow, MessageRow, State
from sipserver.tenants.audit_entry import Entry
from sipserver.tenants.audit_log import NOBODY, AuditLog
from sipserver.tenants.audit_secret import AuditSecret
from sipserver.tenants.retention import Retention, digest
from sipserver.tenants.settings import RetentionSettings
from sipserver.tenants.shredder import Shredder
from tests.fakes.until import eventually, until
from tests.store.conftest import sqlite_settings, store_settings

__all__ = ["sqlite_settings", "store_settings"]

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
SECRET = AuditSecret(b"a secret of at least thirty-two bytes")
NODE = "here"


class House:
    """A database with calls, a folder with recordings, and who deletes."""

    def __init__(self, database: Database, folder: Path, now: datetime = NOW) -> None:
        self.database, self.folder, self.now = database, folder / "recordings", now
        self.audit = AuditLog(AuditRows(database), SECRET)
        self.files = DoomedFiles(database)
        self.shredder = Shredder(NODE, self.folder, clock=lambda: self.now)
        self.folder.mkdir()

    def retention(self, **settings: Any) -> Retention:
        chosen = RetentionSettings(**settings)
        return Retention(
            RetentionRows(self.database), self.files, self.shredder, chosen, self.log, clock=lambda: self.now
        )

    async def log(self) -> AuditLog:
        return self.audit

    async def call(self, name: str, days: float | None, tenant: str = "acme", node: str = NODE, **facts: Any) -> None:
        """One that ended so many days ago; None: it runs. It has a recording, a message and what was said."""
        ended = None if days is None else NOW - timedelta(days=days)
        path, message = self.folder / f"{name}.wav", self.folder / f"message_{name}.wav"
        for file in (path, message):
            file.write_bytes(file.name.encode())
        row = {
            **{"id": name, "tenant": tenant, "node": node, "run": "r", "direction": "inbound", "state": "ended"},
            **{"from_uri": "sip:1@x", "to_uri": "sip:2@x", "source": "s", "sip_call_id": name},
            **{"started_at": (ended or NOW) - timedelta(minutes=1), "ended_at": ended, "recording_path": str(path)},
            **{"recording_status": "complete", "turns": 0, "digits": 0, "faults": 0, "events": 3, "events_dropped": 0},
            **facts,
        }
        told = [
            ("call.started", {}),
            ("stt.transcript", {"text": "hello"}),
            ("voicemail.left", {"box": "x", "path": str(message)}),
        ]
        async with self.database.engine.begin() as connection:
            await connection.execute(sa.insert(calls).values(**row))
            for seq, (kind, fields) in enumerate(told):
                event = {"call_id": name, "seq": seq, "at_ms": seq, "kind": kind, "fields": fields}
                await connection.execute(sa.insert(events).values(**event))

    async def messages(self, call_id: str, state: State, *kinds: str) -> None:
        """What a webhook has of a call."""
        of = EndpointRow("e", "acme", "https://hooks.example", [], "whsec_x", NOW)
        async with self.database.engine.begin() as connection:
            if await connection.scalar(sa.select(webhook_endpoints.c.id)) is None:
                await connection.execute(sa.insert(webhook_endpoints).values(**asdict(of)))
            for kind in kinds:
                name = f"{call_id} {kind}"
                row = MessageRow(name, of.id, of.tenant, call_id, kind, "{}", NOW, NOW, state=state)
                await connection.execute(sa.insert(webhook_messages).values(**row.new()))

    async def queued(self) -> list[str]:
        return await self.left(sa.select(webhook_messages.c.id))

    async def left(self, what: sa.Select[Any]) -> list[Any]:
        async with self.database.engine.connect() as connection:
            return sorted((await connection.execute(what)).scalars())

    async def calls(self) -> list[str]:
        return await self.left(sa.select(calls.c.id))

    async def kinds(self, call_id: str) -> list[str]:
        return await self.left(sa.select(events.c.kind).where(events.c.call_id == call_id))

    def there(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*.wav"))

    async def proofs(self, action: str, tenant: str = "acme") -> list[dict[str, Any]]:
        found: list[Entry] = [entry async for entry in self.audit.entries(tenant)]
        return [json.loads(json.dumps(entry.detail)) for entry in found if entry.action == action]


@pytest.fixture
async def house(store_settings: StoreSettings, tmp_path: Path) -> AsyncIterator[House]:
    database = Database(store_settings)
    await database.open()
    yield House(database, tmp_path)
    await database.close()


async def test_old_calls_go_with_all_that_belongs_to_them(house: House) -> None:
    for name, days in (("a", 31), ("b", 30.5), ("c", 29), ("d", None)):
        await house.call(name, days)
    await house.call("z", 99, tenant="zenith")
    retention = house.retention(records_days=30, tenants={"zenith": {"records_days": 0}})
    swept = await retention.sweep()
    assert swept is not None
    assert [(each.tenant, each.kind, each.count, each.files) for each in swept] == [("acme", Kept.RECORDS, 2, 4)]
    assert await house.calls() == ["c", "d", "z"]
    assert await house.kinds("a") == []
    (proof,) = await house.proofs("retention.deleted")
    assert (proof["count"], proof["ids_sha256"]) == (2, digest(["a", "b"]))
    assert proof["oldest"] < proof["newest"] < proof["before"]
    assert "a.wav" in house.there(), "the machine that has it deletes it"
    assert await house.shredder.work(house.files, house.log) == 4
    assert house.there() == sorted(f"{kind}{name}.wav" for kind in ("", "message_") for name in "cdz")
    (proof,) = await house.proofs("retention.files_deleted")
    lines = sorted(f"{name} {hashlib.sha256(name.encode()).hexdigest()}" for name in (
        "a.wav", "b.wav", "message_a.wav", "message_b.wav"
    ))  # fmt: skip
    assert (proof["files"], proof["missing"]) == (4, 0)
    assert proof["files_sha256"] == hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert await retention.sweep() == []


async def test_each_kind_has_its_own_time(house: House) -> None:
    for name, days in (("a", 1.5), ("b", 2.5), ("c", 3.5), ("d", 4.5)):
        await house.call(name, days)
    swept = await house.retention(transcripts_days=1, recordings_days=2, voicemail_days=3, events_days=4).sweep()
    assert swept is not None
    assert {each.kind: each.count for each in swept} == {
        Kept.EVENTS: 1,
        Kept.TRANSCRIPTS: 3,  # the oldest went with its events
        Kept.RECORDINGS: 3,
        Kept.VOICEMAIL: 2,
    }
    await house.shredder.work(house.files, house.log)
    assert await house.calls() == ["a", "b", "c", "d"]
    assert [await house.kinds(name) for name in "abcd"] == [
        ["call.started", "voicemail.left"],
        ["call.started", "voicemail.left"],
        ["call.started"],
        [],
    ]
    assert house.there() == ["a.wav", "message_a.wav", "message_b.wav"]
    assert await house.left(sa.select(calls.c.events)) == [0, 1, 2, 2]
    assert await house.left(sa.select(calls.c.id).where(calls.c.recording_path.is_not(None))) == ["a"]


async def test_a_dry_run_counts_and_deletes_nothing(house: House) -> None:
    for number in range(5):
        await house.call(f"c{number}", 10 + number)
    retention = house.retention(records_days=12, recordings_days=1, batch=2)
    assert [(each.kind, each.count) for each in await retention.plan()] == [(Kept.RECORDS, 2), (Kept.RECORDINGS, 5)]
    assert len(await house.calls()) == 5
    await retention.sweep()
    assert len(await house.calls()) == 3
    assert len(await house.proofs("retention.deleted")) == 3, "one a batch"


async def test_one_process_does_it_for_all_and_who_dies_is_followed(house: House) -> None:
    first, second = house.retention(records_days=1), house.retention(records_days=1)
    assert await first._claim()
    assert await second.sweep() is None
    house.now = NOW + timedelta(minutes=11)
    assert await second.sweep() == []
    assert await first.sweep() == []


async def test_what_webhooks_have_of_a_call_goes_with_it_delivered_or_not(house: House) -> None:
    for name, days in (("a", 3), ("b", 1)):
        await house.call(name, days)
        await house.messages(name, State.PENDING, "call.started", "stt.transcript")
        await house.messages(name, State.DEAD, "call.ended")
    await house.retention(records_days=2).sweep()
    assert await house.queued() == ["b call.ended", "b call.started", "b stt.transcript"]


@pytest.mark.parametrize(
    ("kind", "left"),
    [
        ("events_days", ["a voicemail.left"]),
        ("transcripts_days", ["a call.started", "a voicemail.left"]),
        ("voicemail_days", ["a call.started", "a stt.transcript"]),
        ("recordings_days", ["a call.started", "a stt.transcript", "a voicemail.left"]),
    ],
)
async def test_what_goes_of_a_call_goes_from_webhooks_too(house: House, kind: str, left: list[str]) -> None:
    await house.call("a", 3)
    await house.messages("a", State.PENDING, "call.started", "stt.transcript", "voicemail.left")
    await house.retention(**{kind: 2}).sweep()
    assert await house.queued() == left


async def test_what_belongs_to_no_tenant_goes_with_a_proof_and_keeps_nobody_elses(house: House) -> None:
    """A call that no dialplan took has none; it is the first in the row."""
    await house.call("lost", 2, tenant="")
    await house.call("a", 2)
    swept = await house.retention(records_days=1).sweep()
    assert swept is not None
    assert [(each.tenant, each.count, each.failed) for each in swept] == [("", 1, ""), ("acme", 1, "")]
    assert await house.calls() == []
    assert await house.shredder.work(house.files, house.log) == 4
    assert house.there() == []
    (proof,) = await house.proofs("retention.deleted", NOBODY)
    assert proof["ids_sha256"] == digest(["lost"])
    (proof,) = await house.proofs("retention.files_deleted", NOBODY)
    assert proof["files"] == 2


async def test_what_cannot_be_proved_of_one_tenant_is_told_and_keeps_nobody_elses(house: House) -> None:
    await house.call("a", 2)
    await house.call("z", 2, tenant="zenith")
    other = AuditLog(AuditRows(house.database), AuditSecret(b"another secret, of thirty-two bytes"))
    await other.append("acme", actor="operator", action="call.created")
    retention = house.retention(records_days=1)
    swept = await retention.sweep()
    assert swept is not None
    assert [(each.tenant, each.count, bool(each.failed)) for each in swept] == [
        ("acme", 0, True),
        ("zenith", 1, False),
    ]
    assert "another secret" in swept[0].failed
    assert await house.calls() == ["a"]
    assert await house.retention(records_days=1)._claim(), "somebody else may sweep at once"


async def test_files_of_which_the_proof_fails_wait_and_keep_nobody_elses(house: House) -> None:
    await house.call("a", 2)
    await house.call("z", 2, tenant="zenith")
    retention = house.retention(recordings_days=1)
    await retention.sweep()
    async with house.database.engine.begin() as connection:
        await connection.execute(sa.delete(audit).where(audit.c.tenant == "acme"))
        await connection.execute(sa.delete(audit_heads).where(audit_heads.c.tenant == "acme"))
    other = AuditLog(AuditRows(house.database), AuditSecret(b"another secret, of thirty-two bytes"))
    await other.append("acme", actor="operator", action="call.created")
    assert await house.shredder.work(house.files, house.log) == 2
    assert len(await house.proofs("retention.files_deleted", "zenith")) == 1
    (waiting,) = await house.files.waiting()
    assert (waiting.tenant, waiting.attempts) == ("acme", 1)


async def test_whatever_fails_the_work_beside_the_calls_goes_on(house: House) -> None:
    """An error that nobody thought of neither ends it nor keeps files that wait."""
    await house.call("a", 2)
    await house.retention(recordings_days=1).sweep()
    retention = house.retention(records_days=1, sweep_s=0.01)

    async def broken() -> list[str]:
        raise RuntimeError("nobody thought of it")

    whole = retention._rows.tenants
    retention._rows.tenants = broken  # type: ignore[method-assign]
    retention.start()
    await until(lambda: "a.wav" not in house.there(), "the files that waited are gone")
    retention._rows.tenants = whole  # type: ignore[method-assign]
    try:
        await eventually(house.calls, lambda left: left == [])
    finally:
        await retention.close()


async def test_a_file_that_another_call_needs_or_that_lies_elsewhere_stays(house: House, tmp_path: Path) -> None:
    await house.call("a", 2)
    await house.call("b", 0.5, recording_path=str(house.folder / "a.wav"))
    (tmp_path / "other.wav").write_bytes(b"mine")
    await house.call("c", 2, recording_path=str(tmp_path / "other.wav"))
    await house.retention(recordings_days=1).sweep()
    await house.shredder.work(house.files, house.log)
    assert "a.wav" in house.there()
    assert (tmp_path / "other.wav").exists()
    (waiting,) = await house.files.waiting()
    assert (waiting.call_id, waiting.attempts) == ("c", 1)
    assert "does not lie in" in str(waiting.error)


async def test_what_cannot_be_deleted_is_told_and_tried_again(house: House) -> None:
    await house.call("a", 2)
    (house.folder / "a.wav").unlink()
    (house.folder / "a.wav").symlink_to("/etc/hostname")
    await house.retention(recordings_days=1).sweep()
    await house.shredder.work(house.files, house.log)
    (waiting,) = await house.files.waiting("acme")
    assert waiting.attempts == 1
    (house.folder / "a.wav").unlink()
    (house.folder / "a.wav").write_bytes(b"a.wav")
    assert await house.shredder.work(house.files, house.log) == 0, "not yet"
    house.now = NOW + timedelta(minutes=2)
    assert await house.shredder.work(house.files, house.log) == 1
    assert "a.wav" not in house.there()
    assert not await house.files.waiting()


async def test_encrypted_files_go_the_same_way_and_the_proof_is_of_what_lay_on_the_disk(house: House) -> None:
    await house.call("a", 2, recording_path=str(house.folder / "a.wav.enc"))
    (house.folder / "a.wav").unlink()
    sealed = {f"a{suffix}.wav.enc": f"sealed{suffix}".encode() for suffix in ("", "-2")}
    for name, content in sealed.items():
        (house.folder / name).write_bytes(content)
    await house.retention(recordings_days=1).sweep()
    await house.shredder.work(house.files, house.log)
    assert [path.name for path in house.folder.iterdir()] == ["message_a.wav"]
    lines = "\n".join(f"{name} {hashlib.sha256(content).hexdigest()}" for name, content in sorted(sealed.items()))
    (proof,) = await house.proofs("retention.files_deleted")
    assert (proof["files"], proof["files_sha256"]) == (2, hashlib.sha256(lines.encode()).hexdigest())


async def test_further_recordings_of_a_call_go_with_it_and_other_machines_files_stay(house: House) -> None:
    await house.call("a", 2)
    await house.call("b", 2, node="elsewhere")
    (house.folder / "a-2.wav").write_bytes(b"a-2.wav")
    await house.retention(recordings_days=1).sweep()
    await house.shredder.work(house.files, house.log)
    assert house.there() == ["b.wav", "message_a.wav", "message_b.wav"]
    (waiting,) = await house.files.waiting()
    assert waiting.node == "elsewhere"
