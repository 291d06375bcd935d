"""What a dialplan says about an agent. `sipserver.agent` declares the same shapes as Protocols and never imports this."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """Base of all dialplan models: an unknown key is an error, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LlmChoice(Strict):
    """`llm: {use: local}`: an engine that the server's settings name, or the next of `fallback` when it fails."""

    use: str = "local"
    fallback: tuple[str, ...] = ()
    max_tokens: int = Field(default=120, ge=1, le=4096)


class TtsChoice(Strict):
    use: str = "piper"
    voice: str = ""
    fallback: tuple[str, ...] = ("espeak",)


class Turn(Strict):
    """When the caller has finished and what happens when they speak over the agent."""

    end_silence_ms: int = Field(default=400, ge=100, le=3000)
    speculate_after_ms: int = Field(default=120, ge=60, le=1000)
    min_voice_ms: int = Field(default=96, ge=32, le=1000)
    barge_in: Literal["pause", "off"] = "pause"
    decide_ms: int = Field(default=400, ge=100, le=2000)
    max_turn_s: float = Field(default=30, gt=0, le=30)


class HttpTool(Strict):
    """A tool the model may call: an HTTP request with JSON arguments that the schema describes."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")
    description: str
    url: str
    method: Literal["GET", "POST"] = "POST"
    headers: dict[str, str] = {}
    parameters: dict[str, Any] = {"type": "object", "properties": {}}
    timeout_s: float = Field(default=5, gt=0, le=60)


class AgentSpec(Strict):
    """tools: built-in tools that the model may use. silence_s: nudge the caller after this much silence, then give up."""

    prompt: str
    greeting: str = ""
    language: str = "en"
    stt: tuple[str, ...] = ("whisper",)
    llm: LlmChoice = LlmChoice()
    tts: TtsChoice = TtsChoice()
    turn: Turn = Turn()
    tools: tuple[Literal["end_call", "transfer", "collect_digits"], ...] = ("end_call",)
    http_tools: tuple[HttpTool, ...] = ()
    filler: str = "One moment please."
    filler_ms: int = Field(default=1500, ge=200)
    apology: str = "Sorry, I have a technical problem."
    nudge: str = "Are you still there?"
    silence_s: float = Field(default=12, gt=0)
    max_nudges: int = Field(default=2, ge=0)
    max_duration_s: float = Field(default=900, gt=0)
    provider_timeout_s: float = Field(default=3, gt=0, le=30)
