"""Names of calls."""

from __future__ import annotations

import uuid

from sipserver.calls.ids import new_id


def test_ids_are_version_7_and_sort_by_time() -> None:
    ids = [new_id() for _ in range(3)]
    assert len(set(ids)) == 3
    assert {(uuid.UUID(text).version, uuid.UUID(text).variant) for text in ids} == {(7, uuid.RFC_4122)}
    assert [text[:8] for text in ids] == sorted(text[:8] for text in ids)
