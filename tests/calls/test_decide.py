"""The step `decide`: what is asked, where the answer leads, and what happens without one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sipserver import yaml_file
from sipserver.calls.deciding import Question
from sipserver.dialplan import load
from sipserver.errors import DialplanError, ProviderError
from sipserver.events import Decided, Fault, VariableSet
from tests.calls.conftest import Stage, outcomes

FLOWS = """
  main: [{decide: {url: 'https://crm.example/route', send: {who: 'it is {from}'}, into: [name], on: {vip: vip,
    other: next, failed: sorry}}}, {hangup: 480}]
  vip: [{hangup: 486}]
  sorry: [{hangup: 500}]"""


@dataclass
class Crm:
    """answer: what it says, or why it does not."""

    answer: tuple[str, Mapping[str, str]] | str
    asked: list[Question] = field(default_factory=list)

    async def ask(self, question: Question) -> Crm:
        self.asked.append(question)
        if isinstance(self.answer, str):
            raise ProviderError("crm.example", self.answer)
        return self

    @property
    def outcome(self) -> str:
        return self.answer[0]

    @property
    def variables(self) -> Mapping[str, str]:
        assert not isinstance(self.answer, str)
        return self.answer[1]


async def run(stage: Stage, answer: tuple[str, Mapping[str, str]] | str) -> tuple[Crm, list[str]]:
    """The server that was asked, and what the caller's telephone was told."""
    stage.decides = crm = Crm(answer)
    leg, _ = stage.call(FLOWS)
    await stage.ended(leg)
    return crm, leg.actions


async def test_the_answer_says_where_to_go_on_and_sets_variables(stage: Stage) -> None:
    crm, actions = await run(stage, ("vip", {"name": "Ann"}))
    assert actions == ["reject 486"]
    (question,) = crm.asked
    assert (question.url, question.timeout_s, question.secret_env) == ("https://crm.example/route", 2.0, "")
    call = stage.records.stamped[0].call_id
    assert question.data == {
        "call_id": call,
        "tenant": "acme",
        "direction": "inbound",
        "from": "alice",
        "to": "demo",
        "trunk": "",
        "answered": False,
        "variables": {"who": "it is alice"},
    }
    assert [(each.name, each.value) for each in stage.records.of(VariableSet)] == [("name", "Ann")]
    assert [each.outcome for each in stage.records.of(Decided)] == ["vip"]
    assert outcomes(stage)[0] == ("decide", "vip")


async def test_next_is_an_answer_too(stage: Stage) -> None:
    _, actions = await run(stage, ("other", {}))
    assert actions == ["reject 480"]


@pytest.mark.parametrize(
    ("answer", "told"),
    [("no answer within 2000 ms", "within 2000"), (("gold", {}), "gold"), (("failed", {}), "failed")],
)
async def test_without_an_answer_the_call_goes_on(
    stage: Stage, answer: tuple[str, Mapping[str, str]] | str, told: str
) -> None:
    _, actions = await run(stage, answer)
    assert actions == ["reject 500"]
    assert any(told in fault.error for fault in stage.records.of(Fault))


async def test_other_variables_stay_as_they_are(stage: Stage) -> None:
    await run(stage, ("vip", {"tenant": "zenith", "name": "x" * 5000}))
    assert [(each.name, len(each.value)) for each in stage.records.of(VariableSet)] == [("name", 1000)]
    assert any("tenant" in fault.error for fault in stage.records.of(Fault))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("url: 'https://{host}/x', on: {a: next, failed: end}", "without variables"),
        ("url: 'ftp://crm/x', on: {a: next, failed: end}", "https://"),
        ("url: 'https://u:p@crm/x', on: {a: next, failed: end}", "https://"),
        ("url: 'https://crm/x', on: {failed: end}", "what the server may answer"),
        ("url: 'https://crm/x', on: {a: next}", "failed"),
        ("url: 'https://crm/x', on: {a b: next, failed: end}", "any name that your server"),
        ("url: 'https://crm/x', into: [call_id], on: {a: next, failed: end}", "cannot be set"),
        ("url: 'https://crm/x', into: ['a b'], on: {a: next, failed: end}", "no name of a variable"),
        ("url: 'https://crm/x', timeout_ms: 60000, on: {a: next, failed: end}", "15000"),
        ("url: 'https://crm/x', on: {a: nowhere, failed: end}", "nowhere"),
    ],
)
def test_mistakes_are_told(options: str, complaint: str) -> None:
    text = f"tenant: acme\nflows:\n  main: [{{decide: {{{options}}}}}]\nroutes: [{{flow: main}}]\n"
    report = load.check_document(yaml_file.parse_text(text, Path("x.yaml"), DialplanError))
    assert complaint in "\n".join(map(str, report.errors))
