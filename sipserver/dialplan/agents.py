"""What a dialplan says about an agent. `sipserver.agent` declares the same shapes as Protocols and imports none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from sipserver.dialplan import template
from sipserver.yaml_file import as_written


def _checked(text: str) -> str:
    template.check(text)
    return text


def _json_schema(value: dict[str, Any]) -> dict[str, Any]:
    from jsonschema import Draft202012Validator, SchemaError  # 3 MB that only servers with tools need

    try:
        Draft202012Validator.check_schema(value)
    except SchemaError as problem:
        raise ValueError(f"no JSON Schema: {problem.message}") from None
    if value.get("type") != "object":
        raise ValueError("the arguments of a tool are an object: `type: object`")
    return value


Text = Annotated[str, BeforeValidator(as_written), WithJsonSchema({"type": ["string", "number", "boolean"]})]
"""Text as it stands in the file: `to: 0049`, `is: 1` and `+4930` need no quotes."""

Variable = Annotated[Text, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
"""The name of a variable that a dialplan sets."""

Template = Annotated[Text, AfterValidator(_checked)]
"""Text in which `{name}` is replaced by a variable; `{{` and `}}` are braces."""


DEFAULT_STT = ("whisper",)
"""The speech-to-text engines of whoever names none."""


class Strict(BaseModel):
    """Base of all dialplan models: an unknown key is an error, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LlmChoice(Strict):
    """`llm: {use: local}`: an engine of the server's settings, or the next of `fallback` when it fails."""

    use: Text = "local"
    fallback: tuple[Text, ...] = ()
    max_tokens: int = Field(default=120, ge=1, le=4096)


class TtsChoice(Strict):
    """`tts: {use: piper, voice: en_US-joe-medium}`: an engine of the settings; without voice its default."""

    use: Text = "piper"
    voice: Text = ""
    fallback: tuple[Text, ...] = ("espeak",)


class Turn(Strict):
    """When the caller has finished and what happens when they speak over the agent."""

    end_silence_ms: int = Field(default=400, ge=100, le=3000)
    speculate_after_ms: int = Field(default=96, ge=60, le=1000)
    min_voice_ms: int = Field(default=96, ge=32, le=1000)
    barge_in: Literal["pause", "off"] = "pause"
    decide_ms: int = Field(default=400, ge=100, le=2000)
    max_turn_s: float = Field(default=30, gt=0, le=30)


class HttpTool(Strict):
    """A tool the model may call: an HTTP request with JSON arguments that the schema describes."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")
    description: Text
    url: str = Field(pattern=r"^https?://[^\s]+$")
    method: Literal["GET", "POST"] = "POST"
    headers: dict[Text, Text] = {}
    parameters: Annotated[dict[str, Any], AfterValidator(_json_schema)] = {"type": "object", "properties": {}}
    timeout_s: float = Field(default=5, gt=0, le=60)


class Example(Strict):
    """What a caller might say and what the agent should answer then: shown to the model as if it had been said."""

    caller: Text
    agent: Text


class AgentSpec(Strict):
    """tools: built-in tools that the model may use.

    silence_s: nudge the caller after this much silence, and give up after max_nudges. noise_suppression: how much of
    the noise around the caller is taken away before the agent listens.
    """

    prompt: Template
    greeting: Template = ""
    examples: tuple[Example, ...] = ()
    language: Text = "en"
    stt: tuple[Text, ...] = Field(default=DEFAULT_STT, min_length=1)
    llm: LlmChoice = LlmChoice()
    tts: TtsChoice = TtsChoice()
    turn: Turn = Turn()
    tools: tuple[Literal["end_call", "transfer", "collect_digits"], ...] = ("end_call",)
    http_tools: tuple[HttpTool, ...] = ()
    filler: Text = "One moment please."
    filler_ms: int = Field(default=1500, ge=200)
    apology: Text = "Sorry, I have a technical problem."
    nudge: Text = "Are you still there?"
    silence_s: float = Field(default=12, gt=0)
    max_nudges: int = Field(default=2, ge=0)
    noise_suppression: Literal["off", "low", "moderate", "high"] = "off"
    max_duration_s: float = Field(default=900, gt=0)
    provider_timeout_s: float = Field(default=3, gt=0, le=30)

    @model_validator(mode="after")
    def _distinct_tools(self) -> AgentSpec:
        names = [*self.tools, *(tool.name for tool in self.http_tools)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two tools are called `{twice}`")
        return self

    def rendered(self, variables: Mapping[str, str]) -> tuple[AgentSpec, tuple[str, ...]]:
        """This agent for one call: greeting and prompt with the variables filled in, and the names without a value."""
        prompt = template.render(self.prompt, variables)
        greeting = template.render(self.greeting, variables)
        unknown = tuple(dict.fromkeys(prompt.unknown + greeting.unknown))
        return self.model_copy(update={"prompt": prompt.text, "greeting": greeting.text}), unknown
