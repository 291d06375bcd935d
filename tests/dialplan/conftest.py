"""What tests of dialplans share."""

from __future__ import annotations

import pytest

from sipserver.dialplan.steps import LATER


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files may hold the steps that are described and not at work yet."""
    for word in list(LATER):
        monkeypatch.delitem(LATER, word)
