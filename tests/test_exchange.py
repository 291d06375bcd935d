"""What a process has ready before it takes calls."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import pytest

from sipserver.audio import hold_music
from sipserver.engines import EngineRoom
from sipserver.exchange import Exchange
from sipserver.settings import Settings
from tests.fakes.records import FakeRecords


async def test_the_music_on_hold_is_made_at_the_start_and_not_on_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_by: list[threading.Thread] = []
    monkeypatch.setattr(hold_music, "gentle", lambda: made_by.append(threading.current_thread()))
    (tmp_path / "acme.yaml").write_text("tenant: acme\nflows:\n  main: [echo]\nroutes: [{flow: main}]\n")
    settings = Settings.model_validate(
        {"dialplans": tmp_path, "calls": {"recordings": tmp_path / "recordings"}, "sip": {"port": 0}}
    )
    exchange = Exchange(settings, EngineRoom(settings), FakeRecords())
    async with exchange.running():
        assert len(made_by) == 1
        assert made_by[0] is not threading.main_thread()
        await exchange.drain(0)
    gc.unfreeze()  # what a process freezes at its start are this one's tests
