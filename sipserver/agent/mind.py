"""The language-model chain of one call: who answers, and who takes over when an engine fails or is too slow."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence

from sipserver.agent.chain import Chain, Clock, milliseconds
from sipserver.agent.iterators import closing, next_within
from sipserver.agent.llm.contract import Delta, Finished, Llm, Message, TextDelta, ToolSpec
from sipserver.agent.options import LlmOptions
from sipserver.errors import ProviderError, ProviderRejected, ProviderTimeout
from sipserver.events import Emit, ModelSpan, ProviderFailed

_GO_ON = "Your last answer was cut off by a technical fault. Go on exactly where it ends, without repeating it."


class Mind:
    """Loop thread. timeout_s: how long an engine may take to its first delta and between two."""

    def __init__(
        self,
        engines: Mapping[str, Llm],
        options: LlmOptions,
        timeout_s: float,
        emit: Emit,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        self._engines, self._options = engines, options
        self._timeout_s, self._emit, self._clock = timeout_s, emit, clock
        self._health = Chain(clock)

    @property
    def calls_tools(self) -> bool:
        """Whether the engine that would be asked now can call tools."""
        order = self._order()
        return bool(order) and order[0].capabilities.tools

    async def warm(self, messages: Sequence[Message]) -> None:
        """Fill the prompt cache of the engine that would be asked now, if it is a local one: others cost money."""
        order = self._order()
        if order and order[0].capabilities.local:
            await order[0].warm(messages)

    async def stream(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncIterator[Delta]:
        """Ask. Close the iterator to cancel. Raises the last engine's ProviderError.

        When an engine dies in the middle, the next one is told what was said so far and goes on from there.
        """
        engines = self._order()
        if not engines:
            raise ProviderRejected(self._options.use, "no such engine")
        said: list[str] = []
        for engine, following in zip(engines, [*engines[1:], None], strict=True):
            asked = list(messages)
            if said:
                yield TextDelta(" ")
                asked += [Message("assistant", "".join(said)), Message("user", _GO_ON)]
            try:
                async with closing(self._ask(engine, asked, tools)) as deltas:
                    async for delta in deltas:
                        if isinstance(delta, TextDelta):
                            said.append(delta.text)
                        yield delta
            except ProviderError as error:
                self._health.failed(engine.name)
                self._emit(ProviderFailed("llm", engine.name, error.reason, following.name if following else ""))
                if following is None:
                    raise
            else:
                self._health.worked(engine.name)
                return

    async def _ask(self, engine: Llm, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncIterator[Delta]:
        """One engine's answer, with its span emitted however it ends."""
        started = self._clock()
        first_ms: int | None = None
        text: list[str] = []
        end: Finished | None = None
        outcome = "cancelled"
        offered = tools if engine.capabilities.tools else ()
        try:
            async with closing(engine.stream(messages, tools=offered, max_tokens=self._options.max_tokens)) as deltas:
                while (delta := await self._next(engine, deltas)) is not None:
                    if first_ms is None:
                        first_ms = milliseconds(self._clock() - started)
                    if isinstance(delta, TextDelta):
                        text.append(delta.text)
                    elif isinstance(delta, Finished):
                        end = delta
                    yield delta
            outcome = "complete"
        except ProviderError:
            outcome = "failed"
            raise
        finally:
            took_ms = milliseconds(self._clock() - started)
            tokens_in, tokens_out = (end.tokens_in, end.tokens_out) if end else (None, None)
            vendor, model = engine.capabilities.vendor, engine.capabilities.model
            span = ModelSpan(
                engine.name, outcome, first_ms, took_ms, tokens_in, tokens_out, "".join(text), vendor, model
            )
            self._emit(span)

    async def _next(self, engine: Llm, deltas: AsyncIterator[Delta]) -> Delta | None:
        try:
            return await next_within(deltas, self._timeout_s)
        except TimeoutError as error:
            raise ProviderTimeout(engine.name, f"nothing within {self._timeout_s:g} s") from error

    def _order(self) -> list[Llm]:
        names = self._health.order([self._options.use, *self._options.fallback])
        return [self._engines[name] for name in names if name in self._engines]
