"""What is sealed in an entry, and what outside text is made to fit."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.store.audit import AuditRow, HeadRow
from sipserver.tenants import audit_entry
from sipserver.tenants.audit_entry import Deed, is_sealed, seal

SECRET = bytes(range(32))
NOW = datetime(2026, 11, 28, 12, 0, 0, 123456, tzinfo=UTC)
TEXTS = ("tenant", "actor", "action", "subject", "detail", "source", "previous")
ROW = AuditRow("acme", 1, NOW, "key:a", "call.created", "call:1", '{"to":"x"}', "192.0.2.1", "", "")


def done(**changes: Any) -> Deed:
    given: dict[str, Any] = {"actor": "key:a", "subject": "call:1", "detail": {}, "source": "192.0.2.1", **changes}
    return audit_entry.deed("acme", given["actor"], "call.created", given["subject"], given["detail"], given["source"])


def test_an_entry_and_its_head_are_sealed_by_their_secret_alone() -> None:
    row, head = audit_entry.entry(done(), 7, "before", NOW, SECRET)
    assert (head.number, head.last) == (row.number, row.mac) == (7, row.mac)
    assert is_sealed(row, SECRET)
    assert is_sealed(head, SECRET)
    assert not is_sealed(row, bytes(32))
    assert not is_sealed(head, bytes(32))


@pytest.mark.parametrize(
    "change",
    [*({name: "other"} for name in TEXTS), {"number": 2}, {"at": NOW + timedelta(microseconds=1)}],
    ids=lambda change: next(iter(change)),
)
def test_every_field_is_under_the_seal(change: dict[str, Any]) -> None:
    assert seal(dataclasses.replace(ROW, **change), SECRET) != seal(ROW, SECRET)


@pytest.mark.parametrize("change", [{"number": 2}, {"last": "b"}, {"tenant": "zenith"}], ids=str)
def test_every_field_of_a_head_is_under_its_seal(change: dict[str, Any]) -> None:
    head = HeadRow("acme", 1, "a", "")
    changed = dataclasses.replace(head, **change)
    assert audit_entry.seal_head(changed, SECRET) != audit_entry.seal_head(head, SECRET)


def test_the_moment_counts_and_not_its_time_zone() -> None:
    elsewhere = dataclasses.replace(ROW, at=NOW.astimezone(timezone(timedelta(hours=-5))))
    assert seal(elsewhere, SECRET) == seal(ROW, SECRET)


@given(st.text(), st.text(), st.text(max_size=3))
def test_text_cannot_move_from_one_field_to_the_next(actor: str, subject: str, moved: str) -> None:
    one = dataclasses.replace(ROW, actor=actor + moved, subject=subject)
    other = dataclasses.replace(ROW, actor=actor, subject=moved + subject)
    assert (seal(one, SECRET) == seal(other, SECRET)) is (one == other)


def test_a_field_cannot_pass_for_another() -> None:
    forged = dataclasses.replace(ROW, actor='key:a","source":"10.0.0.1', source="")
    assert seal(forged, SECRET) != seal(dataclasses.replace(ROW, source="10.0.0.1"), SECRET)


def test_what_databases_do_not_keep_is_replaced_before_it_is_sealed() -> None:
    deed = done(actor="a\x00b\ud800", detail={"\x00": "\ud83d\ude00\udc00", "n": float("nan"), 1: {NOW}})
    assert deed.actor == "a\ufffdb\ufffd"
    assert json.loads(deed.detail) == {"\ufffd": "\U0001f600\ufffd", "n": "nan", "1": str({NOW})}


def test_text_that_is_too_long_is_cut() -> None:
    deed = done(actor="a" * 257, subject="s" * 512, source="x" * 1000)
    assert deed.actor == "a" * 255 + "…"
    assert deed.subject == "s" * 512
    assert len(deed.source) == 128


def test_detail_is_bounded_in_length_and_depth() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    assert json.loads(done(detail={"deep": deep}).detail)["deep"] == json.loads("[" * 19 + '"…"' + "]" * 19)
    long = json.loads(done(detail={"long": "x" * audit_entry.DETAIL_BYTES}).detail)
    assert long["too_long"] == audit_entry.DETAIL_BYTES + len('{"long":""}')
    assert json.loads(done(detail={"long": "x" * 16_000}).detail) == {"long": "x" * 16_000}


@pytest.mark.parametrize(
    ("tenant", "action"), [("", "a"), ("t" * 129, "a"), ("t\x00", "a"), ("t", ""), ("t", "a" * 65), ("\ud800", "a")]
)
def test_a_tenant_or_action_that_is_no_name_is_refused(tenant: str, action: str) -> None:
    with pytest.raises(ValueError, match="is not what a database keeps"):
        audit_entry.deed(tenant, "system", action, "", {}, "")


@pytest.mark.parametrize("detail", ["[1]", "{", ""])
def test_detail_that_nobody_of_ours_wrote(detail: str) -> None:
    with pytest.raises(ValueError, match=r"no object|Expecting"):
        audit_entry.shown(dataclasses.replace(ROW, detail=detail))
