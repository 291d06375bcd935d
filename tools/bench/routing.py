"""What it costs to find the route of a call among many tenants with many numbers: CPU time of `Book.route` alone."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from sipserver.dialplan import book
from sipserver.dialplan.book import Book
from sipserver.dialplan.facts import CallFacts
from tools.bench.report import Row, percentile

TENANTS, NUMBERS = 100, 20
ROUTINGS = 500
TARGET_MS = 1.0


def measure(folder: Path) -> Sequence[Row]:
    """Takes some seconds."""
    found = plans(folder, TENANTS, NUMBERS)
    chance = random.Random(1)
    numbers = [(tenant, number) for tenant in range(TENANTS) for number in range(NUMBERS)]
    spread = timed(found, [number_of(*chance.choice(numbers)) for _ in range(ROUTINGS)])
    last = timed(found, [number_of(TENANTS - 1, NUMBERS - 1)] * ROUTINGS)
    nobody = timed(found, ["+4999999999"] * ROUTINGS)
    about = f"{TENANTS} tenants with {NUMBERS} numbers each"
    return [
        _row(f"CPU time of a routing, {about}", spread),
        _row("... to the last number of the last tenant", last),
        _row("... to a number of nobody", nobody),
    ]


def plans(folder: Path, tenants: int, numbers: int) -> Book:
    """Read from files, as a server does; a route a number, and the hours in front of every fourth."""
    for tenant in range(tenants):
        routes = [_route(tenant, number) for number in range(numbers)]
        text = f"tenant: tenant-{tenant:03}\nflows:\n  main: [answer, {{echo: {{max_s: 60}}}}]\nroutes:\n"
        (folder / f"tenant-{tenant:03}.yaml").write_text(text + "\n".join(routes) + "\n")
    reading = book.read(folder)
    if reading.errors:
        raise reading.errors[0]
    return reading.book


def timed(among: Book, called: Sequence[str]) -> Sequence[float]:
    """CPU milliseconds of each routing, in order of length."""
    now, spent = datetime.now(UTC), list[float]()
    for number in called:
        facts = CallFacts.of(f"sip:{number}@127.0.0.1", "sip:+493011111@192.0.2.1", "192.0.2.1:5060", "udp", {})
        began = time.thread_time_ns()
        among.route(facts, now)
        spent.append((time.thread_time_ns() - began) / 1e6)
    return sorted(spent)


def _route(tenant: int, number: int) -> str:
    hours = ", hours: mon-sun 00:00-24:00" if number % 4 == 0 else ""
    return f"  - {{match: {{to: '{number_of(tenant, number)}'{hours}}}, flow: main}}"


def number_of(tenant: int, number: int) -> str:
    return f"+4930{tenant:03}{number:03}"


def _row(what: str, spent_ms: Sequence[float]) -> Row:
    p50, p99 = percentile(spent_ms, 0.5), percentile(spent_ms, 0.99)
    return Row(what, f"p50 {p50:.3f} ms, p99 {p99:.3f} ms", f"at most {TARGET_MS:g} ms")
