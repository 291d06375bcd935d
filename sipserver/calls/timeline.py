"""A call drawn from its record: a line an event, in columns of time, who, what. Pure text; refuses to know the store.

Digits, and variables that may hold them, are masked unless `private`; what was said is shown, since that is what the
record is read for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

Fields = Mapping[str, Any]


class Row(Protocol):
    """What the record says about the call as a whole. Times are aware; None: it did not happen (yet). tenant: empty:
    nobody's; None: not known.
    """

    @property
    def id(self) -> str: ...
    @property
    def tenant(self) -> str | None: ...
    @property
    def direction(self) -> str: ...
    @property
    def from_uri(self) -> str: ...
    @property
    def to_uri(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def started_at(self) -> datetime: ...
    @property
    def answered_at(self) -> datetime | None: ...
    @property
    def ended_at(self) -> datetime | None: ...
    @property
    def end_reason(self) -> str | None: ...
    @property
    def sip_code(self) -> int | None: ...
    @property
    def recording_path(self) -> str | None: ...
    @property
    def recording_status(self) -> str | None: ...


class Happening(Protocol):
    """A stored event. fields: as `Event.fields` gave them."""

    @property
    def at_ms(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def fields(self) -> Fields: ...


@dataclass(frozen=True, slots=True)
class Line:
    """indent: how deep the event stands in the dialplan; 1 within a step."""

    at_ms: int
    who: str
    what: str
    indent: int


def draw(row: Row, happenings: Iterable[Happening], *, private: bool = False) -> list[str]:
    """The whole call as text, head first."""
    return [clean(text) for text in (*head(row), "", *map(_column, lines(happenings, private=private)))]


def head(row: Row) -> list[str]:
    """The call in three or four lines."""
    end = row.ended_at
    length = f"{(end - row.started_at).total_seconds():.1f} s" if end is not None else "still running or not closed"
    answered = "not answered"
    if row.answered_at is not None:
        answered = f"answered after {(row.answered_at - row.started_at).total_seconds():.1f} s"
    ending = row.end_reason or "no ending yet"
    if row.sip_code:
        ending += f" ({row.sip_code})"
    whose = "" if row.tenant is None else f"  {row.tenant or 'no tenant'}"
    told = [
        f"call    {row.id}{whose}  {row.direction}  {row.started_at:%Y-%m-%d %H:%M:%S}",
        f"from    {row.from_uri}  to {row.to_uri}" + (f"  by {row.source}" if row.source else ""),
        f"ended   {ending}, {answered}, {length}",
    ]
    if row.recording_path:
        told.append(f"record  {row.recording_path} ({row.recording_status})")
    return told


def lines(happenings: Iterable[Happening], *, private: bool = False) -> Iterator[Line]:
    """Every event in the order of the call's clock; events of the same millisecond keep the order of the record."""
    depth = 0
    for happening in sorted(happenings, key=lambda each: each.at_ms):
        kind, fields = happening.kind, dict(happening.fields)
        if not private:
            _mask(kind, fields)
        who, tell = _TELLERS.get(kind, (kind.partition(".")[0], _plainly))
        if kind == "step.left":
            depth = 0
        who = str(fields.pop("leg", "")) or who
        yield Line(happening.at_ms, who, tell(fields) if tell is not _plainly else f"{kind}  {_plainly(fields)}", depth)
        if kind == "step.entered":
            depth = 1


def _column(line: Line) -> str:
    return f"{line.at_ms / 1000:9.3f}  {line.who:<8}{'  ' * line.indent}{line.what}".rstrip()


def clean(text: str) -> str:
    """What callers sent must not steer the reader's terminal, nor break a line in two."""
    return "".join(character if character.isprintable() else "·" for character in text)


def _mask(kind: str, fields: dict[str, Any]) -> None:
    for name in ("digit", "digits", *(("value",) if kind == "variable.set" else ())):
        if name in fields:
            fields[name] = "*" * len(str(fields[name]))


def _plainly(fields: Fields) -> str:
    """For a kind that has no words of its own: `key=value`, without what is empty."""
    return "  ".join(f"{name}={value}" for name, value in fields.items() if value not in ("", None))


def _words(template: str, **only_with: str) -> Callable[[Fields], str]:
    """Words with `{field}`s in them; a field that the event lacks (an old record) is a question mark. only_with:
    further words by a field, which are left out where that is empty.
    """

    def tell(fields: Fields) -> str:
        more = (words for name, words in only_with.items() if fields.get(name, "?") not in ("", None))
        return "".join((template, *more)).format_map(_Asked(fields)).rstrip(" ,:")

    return tell


class _Asked(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "?"


def _transcript(fields: Fields) -> str:
    kind = "" if fields.get("final", True) else " (speculative)"
    work = f"{fields.get('engine', '')} {fields.get('queued_ms', 0)}+{fields.get('took_ms', 0)} ms"
    return f"“{fields.get('text', '')}”{kind}  [{work} for {fields.get('audio_ms', 0)} ms of speech]"


def _clause(fields: Fields) -> str:
    origin = "cached" if fields.get("cached") else f"first sound {fields.get('first_audio_ms')} ms"
    engine = " ".join(str(fields[name]) for name in ("engine", "voice") if fields.get(name))
    return f"made “{fields.get('text', '')}”  [{engine}, {origin}, {fields.get('audio_ms')} ms of sound]"


def _spoken(fields: Fields) -> str:
    if fields.get("complete", True):
        return f"“{fields.get('text', '')}”  [heard, {fields.get('heard_ms')} ms]"
    heard = f"{fields.get('heard_ms')} of {fields.get('audio_ms')} ms"
    return f"“{fields.get('heard', '')}” and no more of “{fields.get('text', '')}”  [{heard}]"


def _latency(fields: Fields) -> str:
    stages = ", ".join(f"{stage} {fields.get(stage + '_ms')}" for stage in ("endpoint", "stt", "llm", "tts", "playout"))
    guessed = ", speculative" if fields.get("speculative") else ""
    return f"first sound {fields.get('total_ms')} ms after the caller  [{stages}{guessed}]"


def _statistics(fields: Fields) -> str:
    mos = f", MOS {fields['mos']:.1f}" if isinstance(fields.get("mos"), int | float) else ""
    lost = f"lost {fields.get('lost')}, reordered {fields.get('reordered')}, discarded {fields.get('discarded')}"
    sent = f"jitter {fields.get('jitter_ms')} ms, sent {fields.get('sent')}"
    return f"received {fields.get('received')} ({lost}), {sent}{mos}"


_TELLERS: dict[str, tuple[str, Callable[[Fields], str]]] = {
    "call.started": ("call", _words("{direction} from {from_uri} to {to_uri}", source=" by {source}")),
    "call.routed": ("call", _words("route {route} ({why}) to flow {flow}")),
    "call.carried": ("call", _words("answered", trunk=" by {trunk}")),
    "call.limited": ("call", _words("no place left in {scope}, which has {limit}")),
    "call.state": ("call", _words("{old} → {new}")),
    "call.ended": ("call", _words("ended: {reason} ({sip_code}) {detail}")),
    "sip.message": ("sip", _words("{direction} {summary} {peer}")),
    "leg.progress": ("leg", _words("is called: {code}")),
    "leg.replaced": ("leg", _words("replaced by {uri} ({by})")),
    "leg.answered": ("leg", _words("answered {code}")),
    "leg.disconnected": ("leg", _words("gone: {code} {cause}")),
    "leg.held": ("leg", _words("held")),
    "leg.resumed": ("leg", _words("resumed")),
    "refer.received": ("leg", _words("wants us to call {target}: {code}")),
    "refer.progress": ("leg", _words("about the transfer: {code}")),
    "party.dialed": ("party", _words("{party}: calling {to}", trunk=" by {trunk}", attempt=" (attempt {attempt})")),
    "party.ended": ("party", _words("{party}: {outcome} ({code}) {cause} {by}")),
    "amd.decided": ("party", _words("{answerer} answered, known after {after_ms} ms {why}")),
    "bridge.started": ("bridge", _words("with {party}, {after_ms} ms after its answer")),
    "bridge.ended": ("bridge", _words("with {party} over after {lasted_ms} ms: {reason}")),
    "transfer.started": ("transf.", _words("{mode} to {to}")),
    "transfer.ended": ("transf.", _words("{mode}: {outcome} ({code}) by {how} after {took_ms} ms")),
    "conference.joined": ("room", _words("member {member} of {room}, {members} are there")),
    "conference.left": ("room", _words("member {member} left {room} after {lasted_ms} ms: {reason}, {members} stay")),
    "conference.muted": ("room", _words("member {member} of {room} muted: {muted} (by {by})")),
    "queue.entered": ("queue", _words("{queue}: number {position} of {waiting}")),
    "queue.offered": ("queue", _words("{queue}: offered to {agent} after {waited_ms} ms")),
    "queue.connected": ("queue", _words("{queue}: with {agent} after {waited_ms} ms of waiting {call}")),
    "queue.left": ("queue", _words("{queue} left after {waited_ms} ms of waiting: {reason}")),
    "queue.served": ("queue", _words("{queue}: served {call} for {lasted_ms} ms")),
    "voicemail.left": ("message", _words("{duration_ms} ms in box {box}, ended by {ended_by}: {path}")),
    "voicemail.transcribed": ("message", _words("“{text}”  [box {box}, {language}, {took_ms} ms]")),
    "media.started": ("media", _words("{codec} (payload type {payload_type}, {clock_hz} Hz) with {remote}")),
    "media.source_changed": ("media", _words("now from {new}, before from {old}")),
    "media.stalled": ("media", _words("nothing came for {silent_ms} ms")),
    "media.recovered": ("media", _words("came back after {silent_ms} ms")),
    "media.rtp": ("media", _statistics),
    "stream.message": ("stream", _words("{direction} {summary}")),
    "stream.dropped": ("stream", _words("connection lost ({code}) {cause}; waiting for it to come back")),
    "stream.resumed": ("stream", _words("back after {after_ms} ms, {replayed_ms} ms of sound sent again")),
    "stream.stats": (
        "media",
        _words(
            "received {received} (made up {concealed}, discarded {discarded}), sent {sent}, drift {drift_ppm} ppm, "
            "unread {bad}, unknown {unknown}, marks {marks_played} played and {marks_cleared} cleared"
        ),
    ),
    "webrtc.ice": ("browser", _words("path {state} {pair}")),
    "webrtc.bit_rate": ("browser", _words("sent with {bit_rate} bit/s: loss {loss_percent} %, fec {fec}, dtx {dtx}")),
    "bot.connected": ("bot", _words("{protocol} at {url} after {took_ms} ms")),
    "bot.disconnected": ("bot", _words("over by {by} ({code}) {cause}, {heard_ms} ms of it heard")),
    "bot.mark": ("bot", _words("mark {name}, played: {played}")),
    "digit.received": ("caller", _words("pressed {digit} ({method})")),
    "digit.sent": ("agent", _words("sent the digits {digits}")),
    "step.entered": ("step", _words("{flow}[{index}] {step} (line {line})")),
    "step.left": ("step", _words("{flow}[{index}] {step}: {outcome} after {took_ms} ms")),
    "decide.answered": ("step", _words("the other server says {outcome} after {took_ms} ms")),
    "variable.set": ("step", _words("{name} = {value}")),
    "call.muted": ("caller", _words("muted from outside: {muted}")),
    "call.on_hold": ("caller", _words("on hold from outside: {on}")),
    "secure.started": ("step", _words("nothing is kept from here on")),
    "secure.ended": ("step", _words("things are kept again after {lasted_ms} ms: {reason}, {hidden} events left out")),
    "recording.started": ("record", _words("to {path}")),
    "recording.paused": ("record", _words("paused at sample {at_sample}")),
    "recording.resumed": ("record", _words("resumed at sample {at_sample}")),
    "recording.stopped": ("record", _words("stopped: {samples} samples, {dropped_frames} frames dropped")),
    "recording.refused": ("record", _words("not begun: {reason}")),
    "recording.failed": ("record", _words("FAILED: {reason}")),
    "voice.started": ("caller", _words("speaks (probability {probability})")),
    "voice.stopped": ("caller", _words("silent for {silence_ms} ms after {voiced_ms} ms of voice")),
    "turn.ended": ("caller", _words("has finished: {reason} ({silence_ms} ms of silence, {voiced_ms} ms of voice)")),
    "turn.barge_in": ("turn", _words("barge-in: {decision} after {heard_ms} ms of the agent {reason}")),
    "turn.speculation": ("turn", _words("speculation {state} {reason}")),
    "turn.latency": ("turn", _latency),
    "stt.transcript": ("caller", _transcript),
    "llm.span": (
        "agent",
        _words("thought “{text}”  [{engine}, {outcome}, first token {first_token_ms} ms, all {took_ms} ms]"),
    ),
    "tool.span": ("agent", _words("used {name}({arguments}) → {result} [ok: {ok}, {took_ms} ms]")),
    "tts.clause": ("agent", _clause),
    "tts.spoken": ("agent", _spoken),
    "usage.engine": ("usage", _words("{part}: {quantity} by {engine} {model}")),
    "limit.exceeded": ("tenant", _words("has reached {limit}: {used} of {most}")),
    "limit.near": ("tenant", _words("comes near to {limit}: {used} of {most}")),
    "fault.provider": ("FAULT", _words("{part} engine {engine}: {error}; next: {next}")),
    "fault.watchdog": ("FAULT", _words("watchdog {watchdog}: {action}")),
    "fault.other": ("FAULT", _words("{where}: {error}")),
}

KINDS = frozenset(_TELLERS)
"""The kinds of events that have words of their own."""
