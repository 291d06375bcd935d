"""The language-model contract: messages in, a stream of deltas out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True)
class ToolCall:
    """arguments: the JSON text as the model wrote it; it may be invalid."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """parameters: a JSON Schema object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A complete tool call; partial ones are joined before they leave the vendor."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class Finished:
    """Always the last delta. reason: stop | length | tool_calls | content_filter."""

    reason: str
    tokens_in: int | None = None
    tokens_out: int | None = None


Delta = TextDelta | ToolCallDelta | Finished


@dataclass(frozen=True, slots=True)
class LlmCapabilities:
    """vendor, model: for the bill; empty where the name of the engine says all."""

    tools: bool
    local: bool
    vendor: str = ""
    model: str = ""


class Llm(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def capabilities(self) -> LlmCapabilities: ...

    def stream(
        self, messages: Sequence[Message], *, tools: Sequence[ToolSpec] = (), max_tokens: int = 160
    ) -> AsyncIterator[Delta]:
        """Ask. Closing the iterator cancels the request. Loop thread.

        Raises ProviderTimeout (no first token in time), ProviderBusy, ProviderRejected.
        """
        ...

    async def warm(self, messages: Sequence[Message]) -> None:
        """Fill the prompt cache (system prompt at start and on reload). Never raises: a cold cache only costs time."""
        ...

    async def close(self) -> None: ...
