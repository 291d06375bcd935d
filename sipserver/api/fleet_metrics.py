"""What Prometheus sees of a fleet's machine: processes, alarms and edge, beside what its calls' events are counted to.

Owns the names of the fleet's gauges and the one text out of all. Refuses to know who answers: it is given callables.
"""

from __future__ import annotations

import asyncio
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


_EDGE_GAUGES = {
    "calls": "Calls that the edge counts on the cells of all machines.",
    "cells_living": "Cells that answer the edge.",
    "cells_dead": "Cells on the edge's list that do not answer.",
    "room": "Places that are free in cells that answer.",
    "draining": "Whether the edge refuses new calls.",
    "uptime_s": "Since Kamailio was started.",
}


class FleetMetrics:
    """Satisfies `server.Exposition`. events_text: the metrics of the records writer, or None while it is away. edge:
    the edge's figures (`Edge.stats`); empty where this machine has none, `error` alone while it does not answer.
    """

    def __init__(
        self,
        facts: Facts,
        events_text: Callable[[], Awaitable[bytes | None]],
        edge: Callable[[], Awaitable[Mapping[str, Any]]],
    ) -> None:
        self._events_text, self._edge = events_text, edge
        self.registry = CollectorRegistry()
        self.registry.register(_FactsCollector(facts))

    async def handle(self, _request: web.Request) -> web.Response:
        """GET /metrics in Prometheus' text format."""
        counted, edge = await asyncio.gather(self._events_text(), self._edge())
        front = CollectorRegistry()
        front.register(_Given(_edge_metrics(edge)))
        text = generate_latest(self.registry) + generate_latest(front) + (counted or b"")
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


class _Given(Collector):
    """Metrics that are there already."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = tuple(metrics)

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _edge_metrics(stats: Mapping[str, Any]) -> Iterable[Metric]:
    """Nothing where there is no edge; `edge_up 0` and nothing else while it does not answer."""
    if not stats:
        return
    up = GaugeMetricFamily("sipserver_edge_up", "Whether Kamailio answers.")
    up.add_metric([], "error" not in stats)
    yield up
    for name, text in _EDGE_GAUGES.items():
        if name in stats:
            gauge = GaugeMetricFamily(f"sipserver_edge_{name.replace('uptime_s', 'uptime_seconds')}", text)
            gauge.add_metric([], float(stats[name]))
            yield gauge
    own = GaugeMetricFamily("sipserver_edge_statistic", "Kamailio's own statistics.", labels=["name"])
    for name, value in stats.items():
        if "." in name:
            own.add_metric([name], float(value))
    yield own
