"""SIPp is the registrar of a trunk: the scenarios `registrar-*`, named by what it does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sipserver.sip import trunk_desk
from sipserver.trunks.state import Registered
from tests.peers.sipp import SCENARIOS, Sipp
from tests.sip.test_registration import Trunks, cell_with, trunk_at

pytestmark = pytest.mark.peers

ONCE = {"expires_s": 60, "retry_s": 60, "retry_most_s": 60}


async def registered_at(name: str, folder: Path) -> Trunks:
    """A trunk that registers at SIPp once, seen until it is registered or failed; SIPp must have been content."""
    with Sipp(name, folder) as sipp:
        async with cell_with(trunk_at(f"127.0.0.1:{sipp.port}", register=ONCE)) as trunks:
            await trunks.state(lambda state: state.registration in (Registered.REGISTERED, Registered.FAILED))
            if name != "registrar-423-then-200":  # there the end of the registration is part of it
                assert await asyncio.to_thread(sipp.wait) == 0, sipp.trace
        assert await asyncio.to_thread(sipp.wait) == 0, sipp.trace
    return trunks


def last(trunks: Trunks) -> tuple[Registered, str]:
    told = [state for state in trunks.states if state.registration is not Registered.UNREGISTERED]
    return told[-1].registration, told[-1].reason


EXPECTED = {
    "registrar-423-then-200": (Registered.REGISTERED, ""),
    "registrar-401-sha256": (Registered.REGISTERED, ""),
    "registrar-401-for-ever": (Registered.FAILED, "REGISTER: 401 Unauthorized"),
    "registrar-401-another-realm": (Registered.FAILED, "REGISTER: 401 Unauthorized"),
    "registrar-403-forbidden": (Registered.FAILED, "REGISTER: 403 Forbidden"),
    "registrar-503-retry-after": (Registered.FAILED, "REGISTER: 503 Service Unavailable"),
    "registrar-silent": (Registered.FAILED, "REGISTER: no answer within 0.5 s"),
}


def test_every_scenario_is_run() -> None:
    assert {file.stem for file in SCENARIOS.glob("registrar-*.xml")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
async def test_registration(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trunk_desk, "UNREGISTER_S", 0.3)
    if name == "registrar-silent":
        monkeypatch.setattr(trunk_desk, "ANSWER_S", 0.5)
    with capture_logs() as logs:
        assert last(await registered_at(name, tmp_path)) == EXPECTED[name]
    if name == "registrar-503-retry-after":
        assert [entry["pause_s"] for entry in logs if "pause_s" in entry] == [1800]
