from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sipserver.cli.checks import Verdict
from sipserver.cli.trunk_checks import trunks
from sipserver.settings import Settings
from sipserver.sip.settings import SipSettings, SipTls
from tests.trunks.make import trunk

GOOD: dict[str, Any] = {"host": "127.0.0.1"}


def findings(
    *facts: dict[str, Any], environment: dict[str, str] | None = None, **more: Any
) -> list[tuple[Verdict, str]]:
    made = tuple(trunk(f"t{number}", **{**GOOD, **fact}) for number, fact in enumerate(facts))
    return [(found.verdict, found.what) for found in trunks(Settings(trunks=made, **more), environment or {})]


def test_nothing_is_said_without_trunks() -> None:
    assert findings() == []


def test_trunks_that_work() -> None:
    facts = {"host": "localhost:5070", "country": "DE", "credentials": {"user": "x", "password_env": "X"}}
    assert findings({}, facts, environment={"X": "secret"}) == [(Verdict.OK, "t0, t1")]


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        ({"credentials": {"user": "x", "password_env": "X"}}, "t0: the environment variable X"),
        ({"host": "nobody.invalid"}, "t0: nobody knows the address of nobody.invalid"),
        ({"outbound_proxy": "nobody.invalid:5061"}, "nobody.invalid"),
        ({"host": "[::1]:5060"}, "::1"),
        ({"country": "XX"}, "XX is no country"),
        ({"codecs": ["opus"]}, "none of its codecs"),
    ],
)
def test_what_would_stop_calls(facts: dict[str, Any], what: str) -> None:
    ((verdict, said),) = findings(facts)
    assert verdict is Verdict.PROBLEM
    assert what in said


def test_a_trunk_that_nobody_can_call_through_is_worth_a_word() -> None:
    facts = {"registrar": "127.0.0.1", "register": {"user": "alice"}}
    ((verdict, said),) = findings(facts)
    assert verdict is Verdict.WARNING
    assert "refused" in said


def test_a_missing_file_of_tls(tmp_path: Path) -> None:
    sip = SipSettings(tls=SipTls(ca=tmp_path / "none.pem"))
    ((verdict, said),) = findings({"transport": "tls"}, sip=sip)
    assert verdict is Verdict.PROBLEM
    assert "none.pem" in said
