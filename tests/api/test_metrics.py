"""Every event that a metric needs moves the right metric, and no label grows without bound."""

from __future__ import annotations

import dataclasses

import pytest
from prometheus_client.exposition import generate_latest

from sipserver import __version__, events
from sipserver.api.metrics import MAX_VALUES, Metrics, Probes
from sipserver.events import Event, Stamped


def rtp(**changes: object) -> events.RtpStats:
    report = events.RtpStats(
        received=100,
        lost=5,
        duplicated=1,
        reordered=2,
        discarded=3,
        jitter_ms=4.0,
        sent=90,
        remote_lost=7,
        remote_jitter_ms=1.0,
        round_trip_ms=20.0,
        mos=4.1,
    )
    return dataclasses.replace(report, **changes)  # type: ignore[arg-type]


def told(metrics: Metrics, *happened: Event, call_id: str = "c1", at_ms: int = 1500) -> None:
    for event in happened:
        metrics.observe(Stamped(call_id, "demo", at_ms, event))


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"sipserver_{name}", labels)


COUNTED: list[tuple[Event, str, dict[str, str], float]] = [
    (events.CallStarted(direction="inbound"), "calls_started_total", {"direction": "inbound"}, 1),
    (events.CallEnded(reason="caller_hangup"), "calls_ended_total", {"reason": "caller_hangup"}, 1),
    (events.CallEnded(reason="drain"), "call_duration_seconds_sum", {}, 1.5),
    (events.LegAnswered(), "call_setup_seconds_sum", {}, 1.5),
    (rtp(), "rtp_packets_total", {"fate": "lost"}, 5),
    (rtp(), "rtp_packets_total", {"fate": "remote_lost"}, 7),
    (rtp(), "rtp_jitter_seconds_sum", {}, 0.004),
    (rtp(), "rtp_round_trip_seconds_sum", {}, 0.02),
    (rtp(round_trip_ms=None), "rtp_round_trip_seconds_count", {}, 0),
    (events.MediaStalled(silent_ms=600), "media_stalled_total", {}, 1),
    (events.MediaSourceChanged(old="a:1", new="b:2"), "media_source_changed_total", {}, 1),
    (events.DigitReceived(digit="1", method="info"), "digits_total", {"method": "info"}, 1),
    (events.QueueLeft("sales", "timeout", 9000), "queue_callers_total", {"reason": "timeout"}, 1),
    (events.QueueLeft("sales", "timeout", 9000), "queue_wait_seconds_count", {}, 0),
    (events.QueueLeft("sales", "answered", 9000), "queue_wait_seconds_sum", {}, 9),
    (events.VoicemailLeft("box", "a.wav", 900, "key"), "voicemails_total", {"ended_by": "key"}, 1),
    (events.TurnEnded("silence", 400, 900), "turns_total", {"reason": "silence"}, 1),
    (events.BargeIn("noise", 500), "barge_ins_total", {"decision": "noise"}, 1),
    (events.Speculation("kept"), "speculations_total", {"state": "kept"}, 1),
    (events.Transcript(engine="whisper", took_ms=80, queued_ms=9), "stt_seconds_sum", {"engine": "whisper"}, 0.08),
    (
        events.Transcript(engine="whisper", took_ms=80, queued_ms=9),
        "stt_queued_seconds_sum",
        {"engine": "whisper"},
        0.009,
    ),
    (
        events.ModelSpan("local", "failed", None, 3000),
        "llm_requests_total",
        {"engine": "local", "outcome": "failed"},
        1,
    ),
    (events.ModelSpan("local", "complete", 79, 900), "llm_first_token_seconds_sum", {"engine": "local"}, 0.079),
    (events.ToolSpan("end_call", ok=True, took_ms=1), "tool_calls_total", {"outcome": "ok"}, 1),
    (
        events.ClauseSynthesised(engine="piper", first_audio_ms=181),
        "tts_first_audio_seconds_sum",
        {"engine": "piper"},
        0.181,
    ),
    (events.ClauseSynthesised(engine="piper", cached=True), "tts_clauses_total", {"origin": "cache"}, 1),
    (events.RecordingStopped("x.wav", 16000, dropped_frames=4), "recording_dropped_frames_total", {}, 4),
    (events.RecordingFailed("x.wav", "disk full"), "recordings_failed_total", {}, 1),
    (
        events.ProviderFailed("stt", "whisper", "timeout"),
        "provider_failures_total",
        {"part": "stt", "engine": "whisper"},
        1,
    ),
    (
        events.WatchdogFired("agent_silent", "retry"),
        "watchdogs_total",
        {"watchdog": "agent_silent", "action": "retry"},
        1,
    ),
    (events.Fault("recorder", "slow"), "faults_total", {"where": "recorder"}, 1),
]


@pytest.mark.parametrize(("event", "name", "labels", "expected"), COUNTED)
def test_event_moves_its_metric(event: Event, name: str, labels: dict[str, str], expected: float) -> None:
    metrics = Metrics()
    told(metrics, event)
    assert value(metrics, name, **labels) == pytest.approx(expected)


def test_turn_latency_by_stage() -> None:
    metrics = Metrics()
    told(metrics, events.TurnLatency(608, 512, 91, 79, 181, 20, speculative=True))
    seen = {stage: value(metrics, "turn_latency_seconds_sum", stage=stage) for stage in ("total", "endpoint", "llm")}
    assert seen == {"total": 0.608, "endpoint": 0.512, "llm": 0.079}


def test_rtp_totals_of_legs_become_counters_of_the_process() -> None:
    metrics = Metrics()
    told(metrics, rtp(received=250), rtp(received=500), call_id="c1")
    told(metrics, rtp(received=40), call_id="c2")
    told(metrics, rtp(received=500), call_id="c1")
    assert value(metrics, "rtp_packets_total", fate="received") == 540


def test_mos_is_the_last_estimate_of_an_ended_call() -> None:
    metrics = Metrics()
    told(metrics, rtp(mos=4.4), rtp(mos=3.2), events.CallEnded("caller_hangup"))
    told(metrics, events.CallEnded("no_route"), call_id="never answered")
    assert value(metrics, "call_mos_sum") == pytest.approx(3.2)
    assert value(metrics, "call_mos_count") == 1


def test_events_without_a_metric_are_ignored() -> None:
    metrics = Metrics()
    before = generate_latest(metrics.registry).count(b"sipserver_")
    told(metrics, events.StepEntered("main", 0, "say"), events.VoiceStarted(0.9))
    assert generate_latest(metrics.registry).count(b"sipserver_") == before


def test_label_values_from_outside_are_bounded() -> None:
    metrics = Metrics()
    for number in range(MAX_VALUES + 20):
        told(metrics, events.Fault(f"place {number}", "x"))
    assert value(metrics, "faults_total", where="place 0") == 1
    assert value(metrics, "faults_total", where="other") == 20


def test_probes_are_read_at_scrape_time() -> None:
    calls = {"answered": 1.0}
    metrics = Metrics(
        Probes(
            calls=lambda: calls,
            capacity=lambda: {"inbound": 3, "total": 4},
            queues=lambda: {"stt.whisper": 2},
            refused=lambda: {"capacity": 5},
            media_clock_late_s=lambda: {"max": 0.004},
            tick_age_s=lambda: {"sip": 0.5},
            callers_waiting=lambda: {"sales": 4},
            longest_wait_s=lambda: {"sales": 61.5},
            record_faults=lambda: {"dropped": 3},
            websockets=lambda: {"twilio": 7},
            websockets_opened=lambda: {"twilio": 9},
            websockets_refused=lambda: {"origin": 1},
            websockets_cut=lambda: {"slow": 2},
            websocket_messages=lambda: {"received": 100},
            websocket_drops=lambda: {"events": 6},
        )
    )
    assert value(metrics, "calls", state="answered") == 1
    calls["answered"] = 2
    assert value(metrics, "calls", state="answered") == 2
    assert value(metrics, "calls_capacity", kind="inbound") == 3
    assert value(metrics, "queue_depth", queue="stt.whisper") == 2
    assert value(metrics, "calls_refused_total", reason="capacity") == 5
    assert value(metrics, "media_clock_late_seconds", statistic="max") == 0.004
    assert value(metrics, "tick_age_seconds", part="sip") == 0.5
    assert value(metrics, "callers_waiting", queue="sales") == 4
    assert value(metrics, "longest_wait_seconds", queue="sales") == 61.5
    assert value(metrics, "record_faults_total", kind="dropped") == 3
    assert value(metrics, "websockets", kind="twilio") == 7
    assert value(metrics, "websockets_opened_total", kind="twilio") == 9
    assert value(metrics, "websockets_refused_total", reason="origin") == 1
    assert value(metrics, "websockets_cut_total", reason="slow") == 2
    assert value(metrics, "websocket_messages_total", direction="received") == 100
    assert value(metrics, "websocket_dropped_messages_total", kind="events") == 6


def test_two_instances_do_not_share_a_registry() -> None:
    first, second = Metrics(), Metrics()
    told(first, events.CallStarted(direction="inbound"))
    assert value(second, "calls_started_total", direction="inbound") is None
    assert value(second, "build_info", version=__version__) == 1


def test_parties_bridges_and_transfers_are_counted() -> None:
    metrics = Metrics()
    told(
        metrics,
        events.PartyEnded(party="party-1", outcome="busy", code=486),
        events.Bridged(party="party-2", after_ms=12),
        events.Unbridged(party="party-2", reason="caller_hangup"),
        events.TransferEnded(mode="blind", outcome="answered", took_ms=2500),
        events.AnswererDetected(answerer="machine", after_ms=1800),
        events.ReferReceived(code=603, target="sip:x@y"),
        events.LegReplaced(by="replaces"),
    )
    assert value(metrics, "parties_total", outcome="busy") == 1
    assert value(metrics, "bridge_setup_seconds_sum") == pytest.approx(0.012)
    assert value(metrics, "bridges_ended_total", reason="caller_hangup") == 1
    assert value(metrics, "transfers_total", mode="blind", outcome="answered") == 1
    assert value(metrics, "transfer_seconds_sum", mode="blind") == pytest.approx(2.5)
    assert value(metrics, "answerers_total", answerer="machine") == 1
    assert value(metrics, "refers_received_total", code="603") == 1
    assert value(metrics, "legs_replaced_total", by="replaces") == 1


def test_a_partys_answer_is_no_set_up_of_the_call_and_its_packets_are_counted_by_themselves() -> None:
    metrics = Metrics()
    told(metrics, events.LegAnswered(leg="party-1"), rtp(received=100), rtp(received=40, leg="party-1"))
    told(metrics, rtp(received=150), rtp(received=60, leg="party-1"))
    assert value(metrics, "call_setup_seconds_count") == 0
    assert value(metrics, "rtp_packets_total", fate="received") == 210
