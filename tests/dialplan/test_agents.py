"""What a dialplan may say about an agent."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from sipserver.agent.options import AgentOptions
from sipserver.dialplan.agents import AgentSpec

TOOL = {"name": "weather", "description": "The weather.", "url": "https://example.com/weather"}


def spec(**options: Any) -> AgentSpec:
    return AgentSpec.model_validate({"prompt": "You are Ada.", **options})


def test_a_spec_is_what_a_conversation_must_be_told() -> None:
    options: AgentOptions = spec(http_tools=[TOOL])
    assert options.http_tools[0].parameters == {"type": "object", "properties": {}}
    assert options.tts.fallback == ("espeak",)


def test_an_agent_is_rendered_for_a_call() -> None:
    found, unknown = spec(prompt="Talk to {from} of {firm}.", greeting="Hi {from}, {{ok}}.").rendered({"from": "Bob"})
    assert (found.prompt, found.greeting, unknown) == ("Talk to Bob of .", "Hi Bob, {ok}.", ("firm",))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"prompt": "Answer as {json: 1}"}, "is not a variable"),
        ({"turn": {"end_silence_ms": 10}}, "greater than or equal to 100"),
        ({"stt": []}, "at least 1 item"),
        ({"tools": ["dance"]}, "end_call"),
        ({"tools": ["end_call", "end_call"]}, "two tools are called `end_call`"),
        ({"http_tools": [TOOL, TOOL]}, "two tools are called `weather`"),
        ({"http_tools": [{**TOOL, "name": "transfer"}], "tools": ["transfer"]}, "two tools are called `transfer`"),
        ({"http_tools": [{**TOOL, "url": "file:///etc/passwd"}]}, "pattern"),
        ({"http_tools": [{**TOOL, "parameters": {"type": "objekt"}}]}, "no JSON Schema: 'objekt' is not valid"),
        ({"http_tools": [{**TOOL, "parameters": {"type": "string"}}]}, "`type: object`"),
    ],
)
def test_what_could_not_work_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError) as caught:
        spec(**options)
    assert reason in str(caught.value)
