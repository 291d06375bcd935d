"""The payload, and what is the same message."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from sipserver.journal import Entry, Kind
from sipserver.webhooks.notices import Notice, of_entries, wanted

AT = datetime(2026, 11, 28, 13, 0, 1, 500_000, tzinfo=timezone(timedelta(hours=1)))


def test_the_payload() -> None:
    notice = Notice("acme", "call.ended", AT, {"reason": "caller_hangup"}, call_id="c1", seq=7, at_ms=1234)
    assert json.loads(notice.payload()) == {
        "type": "call.ended",
        "timestamp": "2026-11-28T12:00:01.500000Z",
        "data": {"call_id": "c1", "tenant": "acme", "at_ms": 1234, "seq": 7, "fields": {"reason": "caller_hangup"}},
    }
    assert notice.payload().isascii()


def test_a_result_without_a_call_and_numbers_that_json_does_not_have() -> None:
    notice = Notice("acme", "transcription.completed", AT, {"mos": float("nan"), "of": [float("inf"), 1.5]}, key="t/1")
    assert json.loads(notice.payload())["data"] == {
        "call_id": None,
        "tenant": "acme",
        "at_ms": None,
        "seq": None,
        "fields": {"mos": None, "of": [None, 1.5]},
    }


def test_the_id_follows_from_what_is_told_to_whom() -> None:
    def made(call_id: str = "c1", seq: int = 1, key: str = "") -> Notice:
        return Notice("acme", "call.ended", AT, call_id=call_id, seq=seq, key=key)

    ids = {made().message_id("we_1"), made().message_id("we_2"), made(seq=2).message_id("we_1")}
    ids |= {made("c2").message_id("we_1"), made(key="t/1").message_id("we_1")}
    assert len(ids) == 5
    assert made().message_id("we_1") in ids
    assert all(each.startswith("msg_") and len(each) <= 64 for each in ids)


def test_a_notice_that_could_not_be_told_apart_or_kept_is_refused() -> None:
    for wrong in ({}, {"call_id": "c1"}, {"seq": 1}, {"call_id": "c" * 65, "seq": 1}):
        with pytest.raises(ValueError, match="notice"):
            Notice("acme", "call.ended", AT, **wrong)


def test_events_of_the_journal() -> None:
    fields = {"tenant": "acme", "seq": 3, "at_ms": 60, "kind": "leg.answered", "fields": {"leg": "party-1"}}
    entries = [
        Entry(Kind.OPENED, "n", "r", "c1", 1.0, {"tenant": "acme"}),
        Entry(Kind.EVENT, "n", "r", "c1", AT.timestamp(), fields),
        Entry(Kind.EVENT, "n", "r", "c1", 2.0, {"tenant": "acme"}),
        Entry(Kind.EVENT, "n", "r", "c" * 65, 2.0, fields),
        Entry(Kind.EVENT, "n", "r", "c1", 1e300, fields),
        Entry(Kind.CLOSED, "n", "r", "c1", 3.0, {"reason": "caller_hangup"}),
    ]
    assert of_entries(entries) == [
        Notice("acme", "leg.answered", AT.astimezone(UTC), {"leg": "party-1"}, call_id="c1", seq=3, at_ms=60)
    ]


def test_patterns() -> None:
    assert wanted("call.ended", ())
    assert wanted("call.ended", ("turn.*", "call.*"))
    assert not wanted("call.ended", ("turn.*", "call"))
    assert not wanted("Call.ended", ("call.*",))
