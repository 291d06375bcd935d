"""What a conversation needs to be told. Dialplan models satisfy these Protocols structurally; defaults live there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from sipserver.agent.llm.contract import Llm
from sipserver.speech.contract import Stt, Tts, Vad


@dataclass(slots=True)
class Engines:
    """All engines of the process by the name under which dialplans use them; shared by all calls.

    It may grow while calls run (a reloaded dialplan names another engine); what a call uses is never taken away.
    """

    vad: Vad
    stt: Mapping[str, Stt]
    tts: Mapping[str, Tts]
    llm: Mapping[str, Llm]


class LlmOptions(Protocol):
    @property
    def use(self) -> str: ...
    @property
    def fallback(self) -> tuple[str, ...]: ...
    @property
    def max_tokens(self) -> int: ...


class TtsOptions(Protocol):
    @property
    def use(self) -> str: ...
    @property
    def voice(self) -> str: ...
    @property
    def fallback(self) -> tuple[str, ...]: ...


class TurnOptions(Protocol):
    @property
    def end_silence_ms(self) -> int: ...
    @property
    def speculate_after_ms(self) -> int: ...
    @property
    def min_voice_ms(self) -> int: ...
    @property
    def barge_in(self) -> Literal["pause", "off"]: ...
    @property
    def decide_ms(self) -> int: ...
    @property
    def max_turn_s(self) -> float: ...


class HttpToolOptions(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def method(self) -> Literal["GET", "POST"]: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def parameters(self) -> Mapping[str, Any]: ...
    @property
    def timeout_s(self) -> float: ...


class ExampleOptions(Protocol):
    @property
    def caller(self) -> str: ...
    @property
    def agent(self) -> str: ...


class AgentOptions(Protocol):
    @property
    def prompt(self) -> str: ...
    @property
    def greeting(self) -> str: ...
    @property
    def examples(self) -> Sequence[ExampleOptions]: ...
    @property
    def language(self) -> str: ...
    @property
    def stt(self) -> tuple[str, ...]: ...
    @property
    def llm(self) -> LlmOptions: ...
    @property
    def tts(self) -> TtsOptions: ...
    @property
    def turn(self) -> TurnOptions: ...
    @property
    def tools(self) -> Sequence[str]: ...
    @property
    def http_tools(self) -> Sequence[HttpToolOptions]: ...
    @property
    def filler(self) -> str: ...
    @property
    def filler_ms(self) -> int: ...
    @property
    def apology(self) -> str: ...
    @property
    def nudge(self) -> str: ...
    @property
    def silence_s(self) -> float: ...
    @property
    def noise_suppression(self) -> Literal["off", "low", "moderate", "high"]: ...
    @property
    def max_nudges(self) -> int: ...
    @property
    def max_duration_s(self) -> float: ...
    @property
    def provider_timeout_s(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a conversation ended. kind: done | failed | transfer | silence | max_duration. detail: for the record."""

    kind: Literal["done", "failed", "transfer", "silence", "max_duration"]
    detail: str = ""


class Fetch(Protocol):
    """Calls a person for the caller while the conversation goes on. One at a time."""

    async def __call__(self, reason: str) -> str:
        """reason: why the caller wants a person, in the agent's words.

        Returns `answered` once the person is there: the conversation is to end at once, and the two have each other.
        Otherwise why nobody comes: busy | no_answer | declined | failed. Safe to cancel: nobody is called any more.
        """
        ...


class DigitSource(Protocol):
    """What the collect_digits tool needs from the call."""

    async def collect(self, count: int, timeout_s: float) -> str:
        """Wait for up to `count` digits; empty when none came in time. Safe to cancel."""
        ...
