"""What Prometheus sees: counters and histograms out of the calls' events, gauges read when somebody scrapes.

Owns the names of the metrics (docs/operations.md lists them) and the table event -> metric. Every label has few values:
what an operator can name freely is cut off at `MAX_VALUES`, and no call id, tenant, number or text becomes a label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sipserver import __version__, events
from sipserver.api.rtp_totals import RtpTotals
from sipserver.events import Event, Stamped
from sipserver.gate.gate import GateFacts

MAX_VALUES = 50

SETUP_S = (0.005, 0.01, 0.02, 0.04, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
STAGE_S = (0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 1.5, 2, 3, 5, 10)
BRIDGE_S = (0.005, 0.01, 0.02, 0.04, 0.06, 0.1, 0.25, 1)
CALL_S = (1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200)
JITTER_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
MOS = (1.5, 2, 2.5, 3, 3.5, 3.8, 4, 4.2, 4.4)

STAGES = ("total", "endpoint", "stt", "llm", "tts", "playout")


def _none() -> Mapping[str, float]:
    return {}


@dataclass(frozen=True, slots=True)
class Probes:
    """What is read at scrape time. Each runs on the loop, must not block, and answers {label value: number}.

    calls: calls now, by state. capacity: `inbound` and `total` calls the cell holds. queues: entries waiting, by queue.
    refused: calls turned away before they became calls, by reason, since the start. media_clock_late_s: how late the
    media clock's ticks were lately, by statistic (`median`, `max`). tick_age_s: since the last tick, by part (`sip`,
    `media`). callers_waiting, longest_wait_s: in queues of the dialplans, by queue. record_faults: what the call
    records suffered since the start, by kind (`dropped`, `lost`, `failures`).
    trunk_up, trunk_registered: 1 or 0, by trunk; the latter only for those that register.
    websockets, websockets_opened, websocket_drops: by kind, WebSockets now, and since the start those that were opened
    and the messages that slow peers did not get. websockets_refused, websockets_cut: by why, before the upgrade and
    after it. websocket_messages: by direction.
    """

    calls: Callable[[], Mapping[str, float]] = _none
    capacity: Callable[[], Mapping[str, float]] = _none
    queues: Callable[[], Mapping[str, float]] = _none
    refused: Callable[[], Mapping[str, float]] = _none
    media_clock_late_s: Callable[[], Mapping[str, float]] = _none
    tick_age_s: Callable[[], Mapping[str, float]] = _none
    callers_waiting: Callable[[], Mapping[str, float]] = _none
    longest_wait_s: Callable[[], Mapping[str, float]] = _none
    record_faults: Callable[[], Mapping[str, float]] = _none
    trunk_up: Callable[[], Mapping[str, float]] = _none
    trunk_registered: Callable[[], Mapping[str, float]] = _none
    websockets: Callable[[], Mapping[str, float]] = _none
    websockets_opened: Callable[[], Mapping[str, float]] = _none
    websockets_refused: Callable[[], Mapping[str, float]] = _none
    websockets_cut: Callable[[], Mapping[str, float]] = _none
    websocket_messages: Callable[[], Mapping[str, float]] = _none
    websocket_drops: Callable[[], Mapping[str, float]] = _none


def with_websockets(probes: Probes, facts: Callable[[], GateFacts]) -> Probes:
    """The same probes and those of a gate."""
    return replace(
        probes,
        websockets=lambda: facts().open,
        websockets_opened=lambda: facts().opened,
        websockets_refused=lambda: facts().refused,
        websockets_cut=lambda: facts().cut,
        websocket_messages=lambda: facts().messages,
        websocket_drops=lambda: facts().dropped,
    )


@dataclass(slots=True)
class _Bounded:
    """Label values from outside the code (engine names, fault places): after MAX_VALUES new ones they are `other`."""

    seen: set[str] = field(default_factory=set)

    def __call__(self, value: str) -> str:
        if value in self.seen:
            return value
        if len(self.seen) >= MAX_VALUES:
            return "other"
        self.seen.add(value)
        return value


class _CountCollector(Collector):
    """One counter that is read when somebody scrapes."""

    def __init__(self, name: str, text: str, label: str, probe: Callable[[], Mapping[str, float]]) -> None:
        self._facts, self._probe = (name, text, label), probe

    def collect(self) -> Iterable[Metric]:
        name, text, label = self._facts
        return _ProbeCollector.family(CounterMetricFamily, name, text, label, self._probe)


class _ProbeCollector(Collector):
    def __init__(self, probes: Probes) -> None:
        self._probes = probes

    def collect(self) -> Iterable[Metric]:
        yield from self.family(GaugeMetricFamily, "calls", "Calls now, by state.", "state", self._probes.calls)
        yield from self.family(
            GaugeMetricFamily, "calls_capacity", "Calls that this process can hold.", "kind", self._probes.capacity
        )
        yield from self.family(
            GaugeMetricFamily, "queue_depth", "Entries waiting, by queue.", "queue", self._probes.queues
        )
        yield from self.family(
            GaugeMetricFamily,
            "media_clock_late_seconds",
            "How late the media clock's ticks were lately.",
            "statistic",
            self._probes.media_clock_late_s,
        )
        yield from self.family(
            CounterMetricFamily, "calls_refused", "Calls turned away at the door.", "reason", self._probes.refused
        )
        yield from self.family(
            GaugeMetricFamily,
            "tick_age_seconds",
            "Since the last tick of the parts that must never stand still.",
            "part",
            self._probes.tick_age_s,
        )
        yield from self.family(
            GaugeMetricFamily, "callers_waiting", "Callers that wait in queues.", "queue", self._probes.callers_waiting
        )
        yield from self.family(
            GaugeMetricFamily,
            "longest_wait_seconds",
            "How long the caller who came first has been waiting.",
            "queue",
            self._probes.longest_wait_s,
        )
        yield from self.family(
            CounterMetricFamily, "record_faults", "Trouble with call records.", "kind", self._probes.record_faults
        )
        yield from self.family(
            GaugeMetricFamily, "trunk_up", "Whether nothing speaks against a trunk.", "trunk", self._probes.trunk_up
        )
        yield from self.family(
            GaugeMetricFamily,
            "trunk_registered",
            "Whether a trunk is registered at its registrar.",
            "trunk",
            self._probes.trunk_registered,
        )
        yield from self._websockets()

    def _websockets(self) -> Iterator[Metric]:
        probes, counter = self._probes, CounterMetricFamily
        yield from self.family(GaugeMetricFamily, "websockets", "WebSockets now.", "kind", probes.websockets)
        for name, text, label, probe in (
            ("websockets_opened", "WebSockets that were opened.", "kind", probes.websockets_opened),
            ("websockets_refused", "WebSockets that were not let in.", "reason", probes.websockets_refused),
            ("websockets_cut", "WebSockets ended for a fault of the peer.", "reason", probes.websockets_cut),
            ("websocket_messages", "Messages on WebSockets.", "direction", probes.websocket_messages),
            ("websocket_dropped_messages", "Messages that slow peers missed.", "kind", probes.websocket_drops),
        ):
            yield from self.family(counter, name, text, label, probe)

    @staticmethod
    def family(
        kind: type[GaugeMetricFamily] | type[CounterMetricFamily],
        name: str,
        text: str,
        label: str,
        probe: Callable[[], Mapping[str, float]],
    ) -> Iterator[Metric]:
        family = kind(f"sipserver_{name}", text, labels=[label])
        for value, number in probe().items():
            family.add_metric([value], number)
        yield family


class Metrics:
    """One registry of its own. `observe` is a listener for every call's events: loop thread, never blocks or raises.

    probes: None for a process that only counts what others tell.
    """

    def __init__(self, probes: Probes | None = None) -> None:
        self.registry = CollectorRegistry()
        self._bounded: dict[str, _Bounded] = {}
        self._rtp = RtpTotals()
        ProcessCollector(registry=self.registry)
        if probes is not None:
            self.registry.register(_ProbeCollector(probes))
        self._declare_calls()
        self._declare_media()
        self._declare_parties()
        self._declare_conversation()
        self._declare_faults()
        self._handlers: dict[type[Event], Callable[[Stamped, Any], None]] = {
            events.CallStarted: self._call_started,
            events.CallEnded: self._call_ended,
            events.LegAnswered: self._leg_answered,
            events.RtpStats: self._rtp_stats,
            events.MediaStalled: lambda _at, _event: self.media_stalled.inc(),
            events.MediaSourceChanged: lambda _at, _event: self.media_source_changed.inc(),
            events.DigitReceived: lambda _at, event: self.digits.labels(event.method).inc(),
            events.TurnEnded: lambda _at, event: self.turns.labels(event.reason).inc(),
            events.BargeIn: lambda _at, event: self.barge_ins.labels(event.decision).inc(),
            events.Speculation: lambda _at, event: self.speculations.labels(event.state).inc(),
            events.TurnLatency: self._turn_latency,
            events.Transcript: self._transcript,
            events.ModelSpan: self._model_span,
            events.ToolSpan: lambda _at, event: self.tools.labels("ok" if event.ok else "failed").inc(),
            events.ClauseSynthesised: self._clause,
            events.QueueLeft: self._queue_left,
            events.VoicemailLeft: lambda _at, event: self.voicemails.labels(event.ended_by).inc(),
            events.RecordingStopped: lambda _at, event: self.recording_dropped.inc(event.dropped_frames),
            events.PartyEnded: lambda _at, event: self.parties.labels(event.outcome).inc(),
            events.Bridged: lambda _at, event: self.bridged_after.observe(event.after_ms / 1000),
            events.Unbridged: lambda _at, event: self.bridges.labels(event.reason).inc(),
            events.TransferEnded: self._transfer_ended,
            events.AnswererDetected: lambda _at, event: self.answerers.labels(event.answerer).inc(),
            events.ReferReceived: lambda _at, event: self.refers.labels(str(event.code)).inc(),
            events.LegReplaced: lambda _at, event: self.replaced.labels(event.by).inc(),
            events.RecordingFailed: lambda _at, _event: self.recording_failed.inc(),
            events.ProviderFailed: self._provider_failed,
            events.WatchdogFired: lambda _at, event: self.watchdogs.labels(event.watchdog, event.action).inc(),
            events.Fault: lambda _at, event: self.faults.labels(self._limit("where", event.where)).inc(),
        }

    def watch_webhooks(self, attempts: Callable[[], Mapping[str, float]], held: Callable[[], float]) -> None:
        """attempts: to deliver, by outcome (`delivered`, `failed`, `dead`), since the start; held: endpoints whose
        receiver is away. Both as probes.
        """
        text = "Attempts to deliver webhooks; dead: messages that were given up."
        self.registry.register(_CountCollector("webhook_attempts", text, "outcome", attempts))
        gauge = Gauge("sipserver_webhook_endpoints_held", "Endpoints whose receiver is away.", registry=self.registry)
        gauge.set_function(held)

    def observe(self, stamped: Stamped) -> None:
        """Count one event; those that no metric needs are ignored."""
        handler = self._handlers.get(type(stamped.event))
        if handler is not None:
            handler(stamped, stamped.event)

    async def handle(self, _request: web.Request) -> web.Response:
        """GET /metrics in Prometheus' text format."""
        return web.Response(body=generate_latest(self.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    # --- declarations -------------------------------------------------------------------------------------------------

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"sipserver_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"sipserver_{name}", text, labels, buckets=buckets, registry=self.registry)

    def _declare_calls(self) -> None:
        info = GaugeMetricFamily("sipserver_build_info", "Always 1; the label is the version.", labels=["version"])
        info.add_metric([__version__], 1)
        self.registry.register(_Constant(info))
        self.calls_started = self._counter("calls_started", "Calls that began.", "direction")
        self.calls_ended = self._counter("calls_ended", "Calls that ended, by the reason in the record.", "reason")
        self.call_duration = self._histogram("call_duration_seconds", "First INVITE to end.", CALL_S)
        self.queue_left = self._counter("queue_callers", "Callers that left a queue, by why.", "reason")
        self.queue_wait = self._histogram("queue_wait_seconds", "Wait of callers who reached an agent.", CALL_S)
        self.voicemails = self._counter("voicemails", "Messages left in boxes, by what ended them.", "ended_by")
        self.call_setup = self._histogram("call_setup_seconds", "First INVITE to 200 OK.", SETUP_S)

    def _declare_media(self) -> None:
        self.rtp_packets = self._counter("rtp_packets", "RTP packets, by what became of them.", "fate")
        self.rtp_jitter = self._histogram("rtp_jitter_seconds", "Interarrival jitter of received RTP.", JITTER_S)
        self.rtp_round_trip = self._histogram("rtp_round_trip_seconds", "Round trip by RTCP.", STAGE_S)
        self.mos = self._histogram("call_mos", "Estimated MOS (ITU-T G.107) of a call at its end.", MOS)
        self.media_stalled = self._counter("media_stalled", "Times that no RTP came although it should.")
        self.media_source_changed = self._counter("media_source_changed", "Times that RTP came from elsewhere.")
        self.digits = self._counter("digits", "Digits received, by way.", "method")
        self.recording_failed = self._counter("recordings_failed", "Recordings that could not be written.")
        self.recording_dropped = self._counter("recording_dropped_frames", "20 ms frames missing in recordings.")

    def _declare_parties(self) -> None:
        self.parties = self._counter("parties", "Further parties that calls reached, or did not.", "outcome")
        self.bridges = self._counter("bridges_ended", "Bridges, by what ended them.", "reason")
        self.bridged_after = self._histogram("bridge_setup_seconds", "The party's answer to sound both ways.", BRIDGE_S)
        self.transfers = self._counter("transfers", "Transfers by us, by mode and verified outcome.", "mode", "outcome")
        self.transfer_time = self._histogram("transfer_seconds", "Begin of a transfer to its outcome.", SETUP_S, "mode")
        self.answerers = self._counter("answerers", "Who answered calls that we placed.", "answerer")
        self.refers = self._counter("refers_received", "REFERs of peers, by our answer.", "code")
        self.replaced = self._counter("legs_replaced", "Legs whose place another dialog took.", "by")

    def _declare_conversation(self) -> None:
        self.turns = self._counter("turns", "Turns of callers, by what ended them.", "reason")
        self.barge_ins = self._counter("barge_ins", "Times callers spoke over the agent, by decision.", "decision")
        self.speculations = self._counter("speculations", "Answers prepared ahead, by their fate.", "state")
        self.turn_latency = self._histogram(
            "turn_latency_seconds", "End of the caller's speech to first agent audio, by stage.", STAGE_S, "stage"
        )
        self.stt = self._histogram("stt_seconds", "Work of speech-to-text for one utterance.", STAGE_S, "engine")
        self.stt_queued = self._histogram("stt_queued_seconds", "Wait for speech-to-text.", STAGE_S, "engine")
        self.llm = self._counter("llm_requests", "Requests to language models.", "engine", "outcome")
        self.llm_first_token = self._histogram("llm_first_token_seconds", "Until the first token.", STAGE_S, "engine")
        self.tts_first_audio = self._histogram(
            "tts_first_audio_seconds",
            "Until a clause's first audio; clauses from the cache not counted.",
            STAGE_S,
            "engine",
        )
        self.tts_clauses = self._counter("tts_clauses", "Clauses spoken, from the engine or the cache.", "origin")
        self.tools = self._counter("tool_calls", "Tools that agents used.", "outcome")

    def _declare_faults(self) -> None:
        self.provider_failures = self._counter(
            "provider_failures", "Engines that failed or were too slow.", "part", "engine"
        )
        self.watchdogs = self._counter("watchdogs", "Watchdogs of calls that fired.", "watchdog", "action")
        self.faults = self._counter("faults", "Other faults that calls' records name.", "where")

    def _limit(self, label: str, value: str) -> str:
        return self._bounded.setdefault(label, _Bounded())(value)

    # --- handlers that do more than count -----------------------------------------------------------------------------

    def _call_started(self, _at: Stamped, event: events.CallStarted) -> None:
        self.calls_started.labels(event.direction).inc()

    def _call_ended(self, at: Stamped, event: events.CallEnded) -> None:
        self.calls_ended.labels(event.reason).inc()
        self.call_duration.observe(at.at_ms / 1000)
        mos = self._rtp.last_mos(at.call_id)
        if mos is not None:
            self.mos.observe(mos)

    def _leg_answered(self, at: Stamped, event: events.LegAnswered) -> None:
        if not event.leg:
            self.call_setup.observe(at.at_ms / 1000)

    def _transfer_ended(self, _at: Stamped, event: events.TransferEnded) -> None:
        self.transfers.labels(event.mode, event.outcome).inc()
        self.transfer_time.labels(event.mode).observe(event.took_ms / 1000)

    def _queue_left(self, _at: Stamped, event: events.QueueLeft) -> None:
        self.queue_left.labels(event.reason).inc()
        if event.reason == "answered":
            self.queue_wait.observe(event.waited_ms / 1000)

    def _rtp_stats(self, at: Stamped, event: events.RtpStats) -> None:
        for fate, packets in self._rtp.grown(at.call_id, event).items():
            self.rtp_packets.labels(fate).inc(packets)
        self.rtp_jitter.observe(event.jitter_ms / 1000)
        if event.round_trip_ms is not None:
            self.rtp_round_trip.observe(event.round_trip_ms / 1000)

    def _turn_latency(self, _at: Stamped, event: events.TurnLatency) -> None:
        for stage in STAGES:
            self.turn_latency.labels(stage).observe(getattr(event, f"{stage}_ms") / 1000)

    def _transcript(self, _at: Stamped, event: events.Transcript) -> None:
        engine = self._limit("engine", event.engine)
        self.stt.labels(engine).observe(event.took_ms / 1000)
        self.stt_queued.labels(engine).observe(event.queued_ms / 1000)

    def _model_span(self, _at: Stamped, event: events.ModelSpan) -> None:
        engine = self._limit("engine", event.engine)
        self.llm.labels(engine, event.outcome).inc()
        if event.first_token_ms is not None:
            self.llm_first_token.labels(engine).observe(event.first_token_ms / 1000)

    def _clause(self, _at: Stamped, event: events.ClauseSynthesised) -> None:
        self.tts_clauses.labels("cache" if event.cached else "engine").inc()
        if not event.cached:
            self.tts_first_audio.labels(self._limit("engine", event.engine)).observe(event.first_audio_ms / 1000)

    def _provider_failed(self, _at: Stamped, event: events.ProviderFailed) -> None:
        self.provider_failures.labels(event.part, self._limit("engine", event.engine)).inc()


class _Constant(Collector):
    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return [self._metric]
