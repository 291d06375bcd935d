"""What Prometheus sees of a fleet's machine: its processes and alarms, beside what its calls' events are counted to.

Owns the names of the fleet's gauges and the one text out of both. Refuses to know who answers: it is given callables.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

Facts = Callable[[], Mapping[str, Any] | None]
"""The supervisor's newest facts (`fleet.status.FleetFacts`); None while none is heard of."""

_GAUGES = {
    "cells_ready": "Cells that take calls.",
    "cells_wanted": "Cells that this machine is to have.",
    "calls": "Calls now, on this machine.",
    "capacity": "Calls that this machine takes.",
    "bus_up": "Whether Redis answers.",
    "records_behind": "Entries of call records that the database does not have yet.",
    "nodes": "Machines of the fleet, this one included.",
    "orphans": "Processes of an earlier supervisor that still finish their calls.",
}


class FleetMetrics:
    """Satisfies `server.Exposition`. events_text: the metrics of the records writer, or None while it is away."""

    def __init__(self, facts: Facts, events_text: Callable[[], Awaitable[bytes | None]]) -> None:
        self._events_text = events_text
        self.registry = CollectorRegistry()
        self.registry.register(_FactsCollector(facts))

    async def handle(self, _request: web.Request) -> web.Response:
        """GET /metrics in Prometheus' text format."""
        counted = await self._events_text()
        text = generate_latest(self.registry) + (counted or b"")
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


class _FactsCollector(Collector):
    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def collect(self) -> Iterable[Metric]:
        facts = self._facts()
        up = GaugeMetricFamily("sipserver_fleet_supervisor_up", "Whether the supervisor answers.")
        up.add_metric([], facts is not None)
        yield up
        if facts is None:
            return
        for name, text in _GAUGES.items():
            gauge = GaugeMetricFamily(f"sipserver_fleet_{name}", text)
            gauge.add_metric([], float(facts[name]))
            yield gauge
        restarts = CounterMetricFamily(
            "sipserver_fleet_restarts", "Processes that had to be replaced.", labels=["kind"]
        )
        for kind, count in facts["restarts"].items():
            restarts.add_metric([kind], count)
        yield restarts
        alarms = GaugeMetricFamily("sipserver_fleet_alarm", "Alarms that are on.", labels=["alarm"])
        for alarm in facts["alarms"]:
            alarms.add_metric([alarm], 1)
        yield alarms
