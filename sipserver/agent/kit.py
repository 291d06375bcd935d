"""The parts of one conversation, made once and shared by its replies. Data, and the choices that all of them need."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from sipserver.agent import phrases
from sipserver.agent.chain import Clock
from sipserver.agent.history import History
from sipserver.agent.llm.contract import Message
from sipserver.agent.mind import Mind
from sipserver.agent.options import AgentOptions, DigitSource, Engines
from sipserver.agent.saying import Saying
from sipserver.agent.tools import Summon, Toolbox
from sipserver.agent.transcriber import Transcriber
from sipserver.agent.voice import Voice, voice_language
from sipserver.audio.frame import Samples
from sipserver.audio.playout import Playout
from sipserver.errors import ProviderError
from sipserver.events import Emit

_APOLOGY_S = 12.0
"""An apology that takes longer is given up: the dialplan's `failed` branch has something to say as well."""


@dataclass(slots=True)
class Kit:
    """language: the one the agent speaks now; it follows the caller when the options say `auto`."""

    options: AgentOptions
    playout: Playout
    emit: Emit
    clock: Clock
    history: History
    transcriber: Transcriber
    mind: Mind
    toolbox: Toolbox
    voice: Voice
    language: str = field(default="")

    def __post_init__(self) -> None:
        if not self.language:
            fixed = self.options.language
            self.language = fixed if fixed != "auto" else voice_language(self.options.tts.voice) or "en"

    @property
    def chain(self) -> tuple[str, ...]:
        return (self.options.tts.use, *self.options.tts.fallback)

    def prompt(self, user: str = "") -> list[Message]:
        """What to ask the model, with the language to answer in if the caller chooses it."""
        return self.history.prompt(user, self.language if self.options.language == "auto" else "")

    async def warm(self) -> None:
        """Have the model read what was said until now, while the caller speaks. Raises nothing but CancelledError."""
        await self.mind.warm(self.prompt())

    def follow(self, language: str) -> None:
        """Answer in the caller's language, if it is the caller's choice and a voice speaks it."""
        if self.options.language == "auto" and language and self.voice.speaks(language, self.chain):
            self.language = language

    def sound(self, text: str, *, fixed: bool = False) -> AsyncIterator[Samples]:
        """The sound of a clause in the agent's voice; fixed texts are cached."""
        return self.voice.synthesise(
            text, chain=self.chain, voice=self.options.tts.voice, language=self.language, cacheable=fixed
        )

    async def prepare(self, after: asyncio.Event) -> None:
        """Put the fixed texts that may be needed in a hurry into the cache, one by one. Raises no ProviderError."""
        await after.wait()
        options = self.options
        for text in (options.filler, options.apology, options.nudge, phrases.reprompt(self.language)):
            if text:
                await self.voice.prepare(text, chain=self.chain, voice=options.tts.voice, language=self.language)

    async def apologise(self) -> None:
        """Say the apology and wait until it was heard. Raises nothing but CancelledError."""
        options = self.options
        if options.apology:
            with contextlib.suppress(ProviderError, TimeoutError):
                async with asyncio.timeout(_APOLOGY_S):
                    await self.voice.say(
                        options.apology, self.playout, chain=self.chain, voice=options.tts.voice, language=self.language
                    )

    def saying(self, *, held: bool = False) -> Saying:
        return Saying(self.playout, self.emit, held=held)


def equip(
    options: AgentOptions,
    engines: Engines,
    playout: Playout,
    emit: Emit,
    digits: DigitSource,
    variables: Mapping[str, str],
    voice: Voice,
    clock: Clock,
    summon: Summon | None = None,
) -> Kit:
    """Make the parts of one conversation. Prompt and greeting come with their variables filled in, once, by the plan:
    a second time would let a caller's header name another variable. variables: for the URLs and headers of tools.
    summon: see `Toolbox`.
    """
    timeout_s = options.provider_timeout_s
    return Kit(
        options=options,
        playout=playout,
        emit=emit,
        clock=clock,
        history=History(options.prompt, options.examples),
        transcriber=Transcriber(engines.stt, options.stt, options.language, timeout_s, emit, clock),
        mind=Mind(engines.llm, options.llm, timeout_s, emit, clock),
        toolbox=Toolbox(options.tools, options.http_tools, digits, variables, emit, clock, summon=summon),
        voice=voice,
    )
