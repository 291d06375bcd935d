"""One answer to one turn: sound -> transcript -> model and tools -> clauses -> sound, behind a gate.

Held (speculation), it does all it can without being heard or having an effect: it transcribes, asks the model and
synthesises the first clause. `release` opens the gate. Owns the stages' times and what goes into the history.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from sipserver.agent import phrases
from sipserver.agent.chain import milliseconds
from sipserver.agent.clauses import ClauseSplitter
from sipserver.agent.iterators import closing
from sipserver.agent.kit import Kit
from sipserver.agent.llm.contract import Message, TextDelta, ToolCall, ToolCallDelta
from sipserver.agent.options import Outcome
from sipserver.agent.tools import MAX_ROUNDS
from sipserver.agent.transcriber import Heard
from sipserver.audio.frame import Samples
from sipserver.errors import ProviderError
from sipserver.events import TurnLatency


@dataclass(slots=True)
class _Round:
    """One request to the model: what it said, what it wanted done, what came of it."""

    said: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    results: list[Message] = field(default_factory=list)


@dataclass(slots=True)
class _Stages:
    llm_asked_ns: int = 0
    first_clause_ns: int = 0
    first_sound_ns: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """How a reply ended. unheard: there were no words in the caller's sound."""

    outcome: Outcome | None = None
    unheard: bool = False


_Clauses = asyncio.Queue[tuple[int, str] | None]
"""Clauses of (round, text), then None. Bounded by the model's max_tokens in each of MAX_ROUNDS."""


class Reply:
    """Loop thread. `run` is one task; `release` and `cut` are synchronous.

    source: the caller's sound, or what was heard in it. told: its words are in the history already (a second attempt).
    """

    def __init__(
        self, kit: Kit, source: Samples | Heard, *, voice_end_ns: int, held: bool = False, told: bool = False
    ) -> None:
        self._kit = kit
        self.source = source
        self._told = told
        self._voice_end_ns = voice_end_ns
        self._gate = asyncio.Event()
        self._released_ns = 0
        self._speculative = held
        self._rounds: list[_Round] = []
        self._stages = _Stages()
        self._committed = False
        self._measured = False
        self._working = False
        self._digits_waits = 0  # odd while digits are waited for: the caller's silence, not ours
        self.heard: Heard | None = source if isinstance(source, Heard) else None
        self.saying = kit.saying(held=held)
        if not held:
            self.release()

    @property
    def busy(self) -> bool:
        """A tool is at work: silence is no fault."""
        return self._working

    def release(self) -> None:
        """The turn is over: play what is kept, and go on without holding back."""
        if not self._gate.is_set():
            self._released_ns = self._kit.clock()
            self._gate.set()
            self.saying.release()
            if self.heard is not None:
                self._keep_words(self.heard)

    def again(self) -> Reply:
        """A second attempt at the same turn, to be started when this one was cut."""
        return Reply(self._kit, self.heard or self.source, voice_end_ns=self._voice_end_ns, told=self.heard is not None)

    def cut(self) -> None:
        """Fall silent; what was heard until now is history. Cancel the task afterwards. Idempotent."""
        self.saying.cut()
        self._commit()

    def measure(self, at_ns: int) -> None:
        """Called every 20 ms: tells the latency once the media clock has taken the first frame."""
        if self._measured or not self.saying.taken:
            return
        self._measured = True
        stages, heard = self._stages, self.heard
        self._kit.emit(
            TurnLatency(
                total_ms=milliseconds(at_ns - self._voice_end_ns),
                endpoint_ms=milliseconds(self._released_ns - self._voice_end_ns),
                stt_ms=heard.waited_ms if heard else 0,
                llm_ms=milliseconds(stages.first_clause_ns - stages.llm_asked_ns),
                tts_ms=milliseconds(stages.first_sound_ns - stages.first_clause_ns),
                playout_ms=milliseconds(at_ns - max(self._released_ns, stages.first_sound_ns)),
                speculative=self._speculative,
            )
        )

    async def run(self) -> Answer:
        """Raises ProviderError when a chain is exhausted. Safe to cancel: it is then cut."""
        filler = asyncio.create_task(self._fill(), name="filler")
        try:
            return await self._run()
        except asyncio.CancelledError:
            self.cut()
            raise
        finally:
            filler.cancel()
            await asyncio.wait((filler,))
            await self.saying.finished()
            self._commit()

    async def _run(self) -> Answer:
        heard = await self._words()
        if not heard.text:
            return Answer(unheard=True)
        wish = None
        if not self._kit.mind.calls_tools:
            wish = phrases.wish(heard.text, heard.language or self._kit.language)
        if wish is not None and self._kit.toolbox.offers(wish):
            await self._gate.wait()
            return Answer(Outcome("done" if wish == "end_call" else "transfer", "the caller asked for it"))
        outcome = await self._answer(heard)
        await self._gate.wait()
        await self.saying.finished()
        return Answer(outcome)

    async def _answer(self, heard: Heard) -> Outcome | None:
        """Think and speak at the same time. Returns when all of it is queued.

        What the model said before it died is still spoken; then its error is raised.
        """
        clauses: _Clauses = asyncio.Queue()

        async def think() -> Outcome | ProviderError | None:
            try:
                return await self._think(heard, clauses)
            except ProviderError as error:
                return error
            finally:
                clauses.put_nowait(None)

        try:
            async with asyncio.TaskGroup() as group:
                thinking = group.create_task(think(), name="think")
                group.create_task(self._speak(clauses), name="speak")
        except ExceptionGroup as errors:
            raise _first(errors) from errors
        outcome = thinking.result()
        if isinstance(outcome, ProviderError):
            raise outcome
        return outcome

    async def _words(self) -> Heard:
        if self.heard is None:
            assert not isinstance(self.source, Heard)
            heard = await self._kit.transcriber.transcribe(self.source, speculative=not self._gate.is_set())
            if heard.text and not self._gate.is_set():
                self._kit.emit(heard.event(final=False))
            self.heard = heard
            self._kit.follow(heard.language)
            if self._gate.is_set():
                self._keep_words(heard)
        return self.heard

    def _keep_words(self, heard: Heard) -> None:
        if heard.text and not self._told:
            self._told = True
            self._kit.emit(heard.event(final=True))
            self._kit.history.add_user(heard.text)

    async def _think(self, heard: Heard, clauses: _Clauses) -> Outcome | None:
        """Ask the model, round by round, and queue clauses. Tools wait for the gate: they have effects."""
        kit = self._kit
        asked = kit.prompt("" if self._told else heard.text)
        outcome: Outcome | None = None
        self._stages.llm_asked_ns = kit.clock()
        for number in range(MAX_ROUNDS):
            this = _Round()
            self._rounds.append(this)
            last = number == MAX_ROUNDS - 1
            await self._ask(asked, this, clauses, number, tools=not last)
            if not this.calls or last:
                break
            await self._gate.wait()
            outcome, words = await self._work(this, clauses)
            if words:
                clauses.put_nowait((number, words))
            if outcome is not None:
                break
            asked += [Message("assistant", " ".join(this.said), tuple(this.calls)), *this.results]
        if outcome is None and not any(round_.said for round_ in self._rounds):
            clauses.put_nowait((0, phrases.reprompt(kit.language)))
        return outcome

    async def _ask(self, asked: list[Message], this: _Round, clauses: _Clauses, number: int, *, tools: bool) -> None:
        splitter = ClauseSplitter()

        def say(complete: list[str]) -> None:
            for clause in complete:
                this.said.append(clause)
                if not self._stages.first_clause_ns:
                    self._stages.first_clause_ns = self._kit.clock()
                clauses.put_nowait((number, clause))

        async with closing(self._kit.mind.stream(asked, self._kit.toolbox.specs if tools else ())) as deltas:
            async for delta in deltas:
                if isinstance(delta, TextDelta):
                    say(splitter.push(delta.text))
                elif isinstance(delta, ToolCallDelta):
                    this.calls.append(delta.call)
        say(splitter.finish())

    async def _work(self, this: _Round, clauses: _Clauses) -> tuple[Outcome | None, str]:
        """Run the tools of a round. The first that ends the conversation is the last that runs."""
        self._working = True
        try:
            for call in this.calls:
                waits = call.name == "collect_digits"
                self._digits_waits += waits
                if waits:
                    await clauses.join()
                patience_s = self._kit.playout.pending_ms / 1000
                result = await self._kit.toolbox.run(call, patience_s=patience_s)
                self._digits_waits += waits
                this.results.append(Message("tool", result.content, tool_call_id=call.id))
                if result.outcome is not None:
                    return result.outcome, result.say if not this.said else ""
            return None, ""
        finally:
            self._working = False

    async def _speak(self, clauses: _Clauses) -> None:
        """Synthesise in order. Behind the first clause nothing is spoken on speculation."""
        first = True
        while (item := await clauses.get()) is not None:
            number, clause = item
            if not first:
                await self._gate.wait()
            first = False
            async with closing(self._timed(self._kit.sound(clause))) as chunks:
                await self.saying.add(clause, chunks, part=number)
            clauses.task_done()

    async def _timed(self, chunks: AsyncIterator[Samples]) -> AsyncIterator[Samples]:
        async with closing(chunks):
            async for samples in chunks:
                if not self._stages.first_sound_ns:
                    self._stages.first_sound_ns = self._kit.clock()
                yield samples

    async def _fill(self) -> None:
        """Say the filler whenever nothing sounded for filler_ms; the next one takes four times as long."""
        options, playout = self._kit.options, self._kit.playout
        await self._gate.wait()
        wait_s = options.filler_ms / 1000
        while options.filler:
            before = self.saying.heard_ms, self._digits_waits
            await asyncio.sleep(wait_s)
            silent = (self.saying.heard_ms, self._digits_waits) == before and playout.pending_ms == 0
            if not silent or playout.paused or self._digits_waits % 2:
                continue
            wait_s = 4 * options.filler_ms / 1000
            with contextlib.suppress(ProviderError):
                await self.saying.add(options.filler, self._kit.sound(options.filler, fixed=True), aside=True)

    def _commit(self) -> None:
        """Put what was heard into the history, with the tools that ran. Once."""
        if self._committed or not self._gate.is_set():
            return
        self._committed = True
        for number, this in enumerate(self._rounds):
            calls = tuple(this.calls[: len(this.results)])
            self._kit.history.add(Message("assistant", self.saying.heard(number), calls), *this.results)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group, for whoever has to say what went wrong."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
