"""`docs/dialplan.md` names every step, option, default, outcome, match key and variable, and its example loads."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from sipserver.dialplan.agents import AgentSpec, Example, HttpTool, LlmChoice, TtsChoice, Turn
from sipserver.dialplan.calendars import Calendar
from sipserver.dialplan.facts import BUILT_IN
from sipserver.dialplan.match import Match
from sipserver.dialplan.plan import PlanFile
from sipserver.dialplan.queues import QueueSpec
from sipserver.dialplan.steps import STEPS, SetStep, Step
from tests.fakes.dialplans import report

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "dialplan.md").read_text()
DEMO = ROOT / "dialplans" / "demo.yaml"
"""Beside it lie the sounds that examples name."""
_ROW = re.compile(r"^\| `(?P<name>[\w.]+)` \| (?P<default>.*?) \| ", re.MULTILINE)
_IN_WORDS = {"none", "see below", "an empty object"}


def section(heading: str) -> str:
    level = heading.partition(" ")[0]
    start = TEXT.index(f"\n{heading}\n") + len(heading)
    following = re.search(rf"\n#{{2,{len(level)}}} ", TEXT[start:])
    return TEXT[start : start + following.start()] if following else TEXT[start:]


def rows(text: str) -> dict[str, str]:
    return {row["name"]: row["default"] for row in _ROW.finditer(text)}


def default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(value)}]`"
    return f"`{value:g}`" if isinstance(value, int | float) else f"`{value}`" if value else '`""`'


def check(model: type[BaseModel], text: str, leave_out: frozenset[str] = frozenset()) -> None:
    told = rows(text)
    for name, field in model.model_fields.items():
        if name in leave_out:
            continue
        key = field.alias or name
        assert key in told, f"{model.__name__}.{key} is not in the docs"
        if told[key] not in _IN_WORDS and not isinstance(field.default, dict) and field.default_factory is None:
            assert told[key] == default(field.default), f"{model.__name__}.{key}"


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_every_step_option_and_outcome(step: type[Step]) -> None:
    text = section(f"### `{step.word}`")
    if step is not SetStep:
        check(step, text, leave_out=frozenset({"on"}))
    assert [outcome for outcome in step.outcomes if f"`{outcome}`" not in text and step is not SetStep] == []
    assert [name for name in step.required if f"`{name}` (required" not in text.replace("\n", " ")] == []


def test_no_step_is_told_that_does_not_exist() -> None:
    assert re.findall(r"^### `(\w+)`$", TEXT, re.MULTILINE) == list(STEPS)


def test_every_match_key() -> None:
    text = section("## Routes")
    told = [field.alias or name for name, field in Match.model_fields.items() if f"| `{field.alias or name}` |" in text]
    assert told == [field.alias or name for name, field in Match.model_fields.items()]


def test_every_key_of_the_file_and_of_agents() -> None:
    check(PlanFile, section("## The file"))
    check(Calendar, section("### Calendars"))
    check(QueueSpec, section("## Queues"))
    agents, *parts = re.split(r"\n`(?:llm|tts|turn|examples|http_tools)\b", section("## Agents"))
    check(AgentSpec, agents)
    choices: tuple[type[BaseModel], ...] = (LlmChoice, TtsChoice, Turn, Example, HttpTool)
    for model, part in zip(choices, parts, strict=True):
        check(model, part)


def test_every_variable() -> None:
    text = section("## Variables and texts")
    assert {name for name in BUILT_IN if f"`{name}`" not in text} == set()


EXAMPLES = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
ELSEWHERE: dict[str, Any] = {
    "tenant": "acme",
    "timezone": "Europe/Berlin",
    "targets": ["*", "*@*"],
    "calendars": {"holidays": {"country": "DE"}},
    "queues": {"sales": {"agents": ["201"]}},
    "agents": {"support": {"prompt": "You answer the phone."}},
    "flows": {name: ["hangup"] for name in ("main", "message", "sorry", "bye", "closed", "assistant", "drop")},
    "routes": [{"flow": "main"}],
}
"""What the examples that are no whole files leave out."""


def whole(example: str) -> str:
    """A file of which an example is all, some top-level keys, or the steps of the first flow."""
    if example.startswith("- "):
        others = {name: steps for name, steps in ELSEWHERE["flows"].items() if name != "main"}
        example = f"flows:\n  main:\n{indent(example, '    ')}{indent(yaml.safe_dump(others), '  ')}"
    said = re.findall(r"^(\w+):", example, re.MULTILINE)
    return example + yaml.safe_dump({key: value for key, value in ELSEWHERE.items() if key not in said})


def test_the_first_example_loads_without_advice() -> None:
    found = report(EXAMPLES[0])
    assert [str(problem) for problem in found.errors + found.warnings] == []


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_loads(example: str) -> None:
    found = report(whole(example), DEMO)
    assert [str(problem) for problem in found.errors] == []
