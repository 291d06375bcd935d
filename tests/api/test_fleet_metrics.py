"""A fleet's metrics: the supervisor's facts, the writer's counters and the edge's figures in one text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from prometheus_client.parser import text_string_to_metric_families

from sipserver.api.fleet_metrics import FleetMetrics

FACTS: Mapping[str, Any] = {
    **dict.fromkeys(("cells_ready", "cells_wanted", "calls", "capacity", "bus_up"), 1),
    **dict.fromkeys(("records_behind", "nodes", "orphans"), 0),
    "restarts": {"cell": 2},
    "alarms": ["bus_away"],
}
EDGE: Mapping[str, Any] = {
    "draining": False,
    "uptime_s": 12,
    "calls": 3,
    "cells_living": 2,
    "cells_dead": 1,
    "room": 5,
    "core.rcv_requests": 40,
    "dialog.active_dialogs": 3,
}


async def scraped(facts: Mapping[str, Any] | None, edge: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """By metric and the values of its labels."""

    async def counted() -> bytes:
        return b"# TYPE sipserver_calls gauge\nsipserver_calls 7.0\n"

    async def asked() -> Mapping[str, Any]:
        return edge

    answer = await FleetMetrics(lambda: facts, counted, asked).handle(make_mocked_request("GET", "/metrics"))
    assert isinstance(answer, web.Response)
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(answer.text or ""):
        for sample in family.samples:
            found.setdefault(sample.name, {})[",".join(sample.labels.values())] = sample.value
    return found


async def test_everything_in_one_text() -> None:
    found = await scraped(FACTS, EDGE)
    assert found["sipserver_calls"] == {"": 7}
    assert found["sipserver_fleet_restarts_total"] == {"cell": 2}
    assert found["sipserver_fleet_alarm"] == {"bus_away": 1}
    edge = {name: value[""] for name, value in found.items() if name.startswith("sipserver_edge_") and "" in value}
    assert edge == {
        "sipserver_edge_up": 1,
        "sipserver_edge_draining": 0,
        "sipserver_edge_uptime_seconds": 12,
        "sipserver_edge_calls": 3,
        "sipserver_edge_cells_living": 2,
        "sipserver_edge_cells_dead": 1,
        "sipserver_edge_room": 5,
    }
    assert found["sipserver_edge_statistic"] == {"core.rcv_requests": 40, "dialog.active_dialogs": 3}


async def test_an_edge_that_does_not_answer_is_down_and_tells_nothing_old() -> None:
    found = await scraped(FACTS, {"error": "no answer"})
    assert {name for name in found if name.startswith("sipserver_edge_")} == {"sipserver_edge_up"}
    assert found["sipserver_edge_up"] == {"": 0}


async def test_no_supervisor_and_no_edge() -> None:
    found = await scraped(None, {})
    assert found == {"sipserver_fleet_supervisor_up": {"": 0}, "sipserver_calls": {"": 7}}
