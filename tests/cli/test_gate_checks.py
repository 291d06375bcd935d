"""What the doctor says about calls that come by HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sipserver.cli.checks import Verdict
from sipserver.cli.gate_checks import gate
from sipserver.settings import Settings

SECRET = "SIPSERVER_TOKEN_SECRET"
TWILIO = {"account_sid": "AC" + "0" * 32}
URL = {"public_url": "https://voice.example.com"}
ALL_SET = {SECRET: "x" * 32, "TWILIO_AUTH_TOKEN": "x", "VONAGE_SIGNATURE_SECRET": "x"}


@pytest.fixture(autouse=True)
def _no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SECRET, raising=False)


def findings(environment: dict[str, str], **facts: Any) -> list[tuple[Verdict, str]]:
    return [(found.verdict, found.what) for found in gate(Settings.model_validate(facts), environment)]


def vonage(folder: Path) -> dict[str, Any]:
    key = folder / "key.pem"
    key.write_text("a key")
    return {"application_id": "1", "private_key": str(key)}


def test_nothing_is_said_where_no_calls_come_by_http() -> None:
    assert findings({}) == []


def test_accounts_that_work(tmp_path: Path) -> None:
    streams = {"twilio": [TWILIO], "vonage": [vonage(tmp_path)]}
    assert findings(ALL_SET, streams=streams, gate=URL) == [(Verdict.OK, "twilio, vonage")]


def test_the_secrets_of_carriers_are_missed(tmp_path: Path) -> None:
    streams = {"twilio": [TWILIO], "vonage": [vonage(tmp_path)]}
    for name, said in findings({}, streams=streams, gate=URL):
        assert name is Verdict.PROBLEM
        assert "is not set" in said
    assert len(findings({}, streams=streams, gate=URL)) == 2


@pytest.mark.parametrize(
    ("facts", "verdict", "what"),
    [
        ({"streams": {"twilio": [TWILIO]}}, Verdict.WARNING, "gate.public_url is empty"),
        (
            {"streams": {"twilio": [TWILIO]}, "gate": {"public_url": "http://a.example"}},
            Verdict.WARNING,
            "by wss alone",
        ),
        ({"streams": {"vonage": [{"application_id": "1"}]}, "gate": URL}, Verdict.WARNING, "no private_key"),
        (
            {"streams": {"vonage": [{"application_id": "1", "private_key": "/nowhere"}]}, "gate": URL},
            Verdict.PROBLEM,
            "/nowhere cannot be read",
        ),
    ],
)
def test_what_stands_in_the_way(facts: dict[str, Any], verdict: Verdict, what: str) -> None:
    ((judged, said),) = findings(ALL_SET, **facts)
    assert judged is verdict
    assert what in said


def test_gateways_of_a_fleet_need_one_secret() -> None:
    facts = {"mode": "fleet", "bus": {"url": "redis://127.0.0.1/0"}, "http": {"phone": True}}
    ((verdict, said),) = findings({}, **facts)
    assert verdict is Verdict.PROBLEM
    assert "each gateway refuses the tokens of the others" in said
    assert findings(ALL_SET, **facts) == [(Verdict.OK, "with tokens")]


def test_a_single_server_may_have_a_secret_of_its_own() -> None:
    ((verdict, said),) = findings({}, http={"phone": True})
    assert verdict is Verdict.WARNING
    assert "only the server's own pages get tokens" in said
