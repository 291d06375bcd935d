"""The judgement by itself: every row of the table in the module."""

from __future__ import annotations

import pytest

from sipserver.agent import barge_in


def test_too_short_is_a_noise() -> None:
    assert barge_in.too_short(64).kind == "noise"


@pytest.mark.parametrize(
    ("text", "kind"), [("", "noise"), ("  ", "noise"), ("Mhm, ja.", "backchannel"), ("Moment mal", "speech")]
)
def test_by_transcript(text: str, kind: str) -> None:
    assert barge_in.by_transcript(text, "de").kind == kind


@pytest.mark.parametrize(
    ("voiced_ms", "still", "kind"), [(400, True, "speech"), (300, False, "speech"), (200, False, "noise")]
)
def test_by_duration(voiced_ms: int, still: bool, kind: str) -> None:
    judgement = barge_in.by_duration(voiced_ms, still_voiced=still)
    assert judgement.kind == kind
    assert str(voiced_ms) in judgement.reason
