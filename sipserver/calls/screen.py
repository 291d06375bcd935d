"""What of a call's events may be told: card numbers, digits and the time of a `secure` step stay out.

Owns which fields of events hold what callers say and type. All that records, webhooks, sockets and logs say about
a call comes from its events, which pass here first; so all of them say the same. Refuses to know who they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from typing import Any

from sipserver import events
from sipserver.calls import redaction
from sipserver.calls.rows import ROW_MS, SHOWN_DIGITS, Row
from sipserver.calls.settings import Redact
from sipserver.events import Event

WITHHELD = "[kept secret]"
_SHORT = 4
"""A shorter secret is hidden only where it is the whole field: it is part of many a number."""
_NUMBERS = frozenset({"from_uri", "to_uri", "uri", "target", "to", "agent", "url"})
"""Private fields that say who calls whom: no redaction makes a call record useless."""
_FREE = frozenset({"error", "detail", "summary", "name"})
"""Fields that repeat what others said, though they are not private."""

_SILENT: tuple[type[Event], ...] = (
    *(events.DigitReceived, events.DigitsSent, events.VariableSet),
    *(events.Transcript, events.ModelSpan, events.ToolSpan, events.ClauseSynthesised, events.Spoken),
    *(events.StreamMessage, events.BotMark, events.VoicemailTranscribed),
)
"""Events that are nothing but what was said and typed: left out of a `secure` step, with their number."""

_IN_PARTS: dict[type[Event], str] = {
    **dict.fromkeys((events.Transcript, events.ModelSpan, events.ClauseSynthesised, events.Spoken), "text"),
    events.DigitsSent: "digits",
}
"""Events of which one may go on where the last one of its kind ended, and the field that does."""


class Screen:
    """One call's. Loop thread."""

    def __init__(self, redact: Redact) -> None:
        self._redact = redact
        self._secrets: tuple[str, ...] = ()
        self._rows: dict[str, tuple[int, int]] = {}
        """By leg: digits that are typed in a row, and when the last one came."""
        self._said: dict[tuple[str, str], Row] = {}
        """By kind of event and leg."""
        self.secured = False
        self.hidden = 0
        """Events that were left out since `secured` was set."""

    def keep_secret(self, values: Sequence[str]) -> None:
        """Hide these values in every further event."""
        self._secrets = tuple(dict.fromkeys((*self._secrets, *filter(None, values))))

    def shown(self, event: Event, at_ms: int) -> Event | None:
        """The event as it may be told; None: not at all. at_ms: by the call's clock."""
        kind: Any = type(event)
        if self.secured:
            if isinstance(event, _SILENT):
                self.hidden += 1
                return None
            return _changed(event, (*_private(kind), *_free(kind)), lambda _text: "")
        if self._secrets:
            event = _changed(event, _texts(kind), self._without_secrets)
            event = _changed(event, _private(kind), lambda text: WITHHELD if text in self._secrets else text)
        return event if self._redact is Redact.OFF else self._redacted(event, at_ms)

    def _redacted(self, event: Event, at_ms: int) -> Event:
        if isinstance(event, events.DigitReceived):
            return self._digit(event, at_ms)
        if isinstance(event, events.SipMessage):
            return dataclasses.replace(event, text=_without_body(event.text)) if _is_info(event) else event
        if name := _IN_PARTS.get(type(event)):
            return self._said_in_parts(event, name, at_ms)
        clean = redaction.digits if self._redact is Redact.DIGITS else redaction.cards
        kind: Any = type(event)
        private = tuple(name for name in _private(kind) if name not in _NUMBERS)
        return _changed(_changed(event, private, clean), _free(kind), redaction.cards)

    def _digit(self, event: events.DigitReceived, at_ms: int) -> events.DigitReceived:
        """Digits come one by one: that they are a card number is known too late, so a long row is hidden from its
        seventh digit on.
        """
        count, last_ms = self._rows.get(event.leg, (0, 0))
        before = 0 if at_ms - last_ms > ROW_MS else count
        count = before + 1 if event.digit.isdecimal() else 0
        self._rows[event.leg] = (count, at_ms)
        if self._redact is Redact.DIGITS or count > SHOWN_DIGITS:
            return dataclasses.replace(event, digit=redaction.HIDDEN)
        return event

    def _said_in_parts(self, event: Event, name: str, at_ms: int) -> Event:
        row = self._said.setdefault((event.kind, getattr(event, "leg", "")), Row(self._redact))
        text: str = getattr(event, name)
        spans = row.spans(text, at_ms, guess=isinstance(event, events.Transcript) and not event.final)
        changes: dict[str, Any] = {name: redaction.replaced(text, spans)}
        if isinstance(event, events.Spoken):
            heard = event.heard
            of_heard = spans if text.startswith(heard) else Row(self._redact).spans(heard, at_ms)
            changes["heard"] = redaction.replaced(heard, of_heard)
        return dataclasses.replace(event, **changes)

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            if len(secret) >= _SHORT:
                text = text.replace(secret, WITHHELD)
        return text


def _changed(event: Event, names: Sequence[str], change: Callable[[str], str]) -> Event:
    """The event with texts changed; the same one where none is."""
    different: dict[str, Any] = {}
    for name in names:
        old = getattr(event, name)
        if isinstance(old, str) and old and (new := change(old)) != old:
            different[name] = new
    return dataclasses.replace(event, **different) if different else event


def _is_info(event: events.SipMessage) -> bool:
    return event.summary.startswith("INFO")


def _without_body(message: str) -> str:
    """Of an INFO: its body is the digit."""
    head, blank, _body = message.partition("\r\n\r\n" if "\r\n\r\n" in message else "\n\n")
    return head + blank


@cache
def _private(kind: Hashable) -> tuple[str, ...]:
    return tuple(field.name for field in _fields(kind) if field.metadata.get("private"))


@cache
def _free(kind: Hashable) -> tuple[str, ...]:
    """Of faults, endings and bots; a tool's name is our own, as is that of a variable."""
    ours = (events.ToolSpan, events.VariableSet, events.SipMessage)
    return () if kind in ours else tuple(field.name for field in _fields(kind) if field.name in _FREE)


@cache
def _texts(kind: Hashable) -> tuple[str, ...]:
    return tuple(field.name for field in _fields(kind))


def _fields(kind: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(kind)
