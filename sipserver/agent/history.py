"""What was said so far, as the model is told it. Owns the bound; refuses to guess: only what was heard is added."""

from __future__ import annotations

from collections.abc import Sequence

from sipserver.agent.llm.contract import Message
from sipserver.agent.options import ExampleOptions

MAX_MESSAGES = 40
MAX_CHARACTERS = 8_000
_LANGUAGES = {
    "cs": "Czech", "da": "Danish", "de": "German", "en": "English", "es": "Spanish", "fr": "French", "it": "Italian",
    "nl": "Dutch", "pl": "Polish", "pt": "Portuguese",
    "ru": "Russian", "sv": "Swedish", "tr": "Turkish", "uk": "Ukrainian",
}  # fmt: skip


class History:
    """The messages of one conversation.

    Bound: beyond 40 messages or 8,000 characters the oldest are dropped up to the next message of the caller, so that
    a tool's answer never stands without its call. The system prompt and the examples are never dropped.

    examples: turns that were never said, by which the model learns how to answer.
    """

    def __init__(
        self,
        system: str,
        examples: Sequence[ExampleOptions] = (),
        *,
        max_messages: int = MAX_MESSAGES,
        max_characters: int = MAX_CHARACTERS,
    ) -> None:
        self._system = system
        self._examples: list[Message] = []
        for example in examples:
            self._examples += [Message("user", example.caller), Message("assistant", example.agent)]
        self._messages: list[Message] = []
        self._max_messages, self._max_characters = max_messages, max_characters

    @property
    def messages(self) -> Sequence[Message]:
        """Without the system prompt and the examples, oldest first."""
        return tuple(self._messages)

    @property
    def unanswered(self) -> str:
        """The caller's last words if nothing was said to them yet."""
        return self._messages[-1].content if self._messages and self._messages[-1].role == "user" else ""

    def prompt(self, user: str = "", language: str = "") -> list[Message]:
        """What to send: system prompt, examples, history, and `user` as the caller's last words without keeping them.

        language: a primary tag to answer in; it stands behind the prompt, so that a prompt cache keeps its prefix.
        """
        system = self._system
        if language:
            system += f"\nAnswer in {_LANGUAGES.get(language, language)}."
        said = list(self._messages)
        if user:
            self._join(said, user)
        return [Message("system", system), *self._examples, *said]

    def add_user(self, text: str) -> None:
        """The caller's words. A second turn without an answer between them continues the first."""
        self._join(self._messages, text)
        self._trim()

    def add(self, *messages: Message) -> None:
        """What the agent did; an assistant message without heard words and without tool calls is left out."""
        self._messages += [
            message for message in messages if message.role != "assistant" or message.content or message.tool_calls
        ]
        self._trim()

    @staticmethod
    def _join(messages: list[Message], text: str) -> None:
        if messages and messages[-1].role == "user":
            messages[-1] = Message("user", f"{messages[-1].content} {text}")
        else:
            messages.append(Message("user", text))

    def _trim(self) -> None:
        while len(self._messages) > 1 and self._over():
            del self._messages[0]
            while len(self._messages) > 1 and self._messages[0].role != "user":
                del self._messages[0]

    def _over(self) -> bool:
        characters = sum(len(message.content) for message in self._messages)
        return len(self._messages) > self._max_messages or characters > self._max_characters
