"""`python -m tools.bench [NAME ...] [--write]`: run benches and print their tables.

Names: those of `BENCHES` (one server; all of them by default), those of `FLEET`, or `fleet` for all of these. With
`--peer HOST:PORT` the fleet's loads go to any other SIP server: it must echo what calls to `echo` say, and answer calls
to `quick` and wait for the BYE.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tools.bench import (
    amd,
    bridge,
    bus,
    call_cost,
    echo_delay,
    encryption,
    events,
    fleet_agent,
    fleet_control,
    fleet_faults,
    fleet_growth,
    fleet_memory,
    fleet_rate,
    fleet_steps,
    idle_sockets,
    media_relay,
    records,
    response,
    routing,
    setup_time,
    speech,
    speech_worker,
    streams,
    transfers,
)
from tools.bench.fleet_options import Options
from tools.bench.report import PLOTS, Finding, Row, figures, markdown, write, write_figures, write_section

BENCHES: dict[str, tuple[str, Callable[[Path], Sequence[Row]]]] = {
    "echo": ("Echo round trip", echo_delay.measure),
    "setup": ("Call set-up", setup_time.measure),
    "cost": ("CPU and memory", call_cost.measure),
    "barge-in": ("Barge-in", response.measure_barge_in),
    "response": ("Response time of an agent", response.measure_response),
    "speech": ("Speech engines", speech.measure),
    "speech-worker": ("Speech worker", speech_worker.measure),
    "bus": ("Bus", bus.measure),
    "records": ("Call records", records.measure),
    "bridge": ("Bridged calls", bridge.measure),
    "transfer": ("Transfers", transfers.measure),
    "relay": ("Media relay", media_relay.measure),
    "streams": ("Twilio streams", streams.measure),
    "idle-sockets": ("Idle event WebSockets", idle_sockets.measure),
    "routing": ("Routing among tenants", routing.measure),
    "events": ("Events for programs", events.measure),
    "encryption": ("Encrypted recordings", encryption.measure),
    "amd": ("Answering machine detection", amd.measure),
}

FLEET: dict[str, tuple[str, Callable[[Path, Options], Finding]]] = {
    "fleet-steps": ("Fleet: calls at a time", fleet_steps.measure),
    "fleet-rate": ("Fleet: calls a second", fleet_rate.measure),
    "fleet-agent": ("Fleet: calls with an agent", fleet_agent.measure),
    "fleet-memory": ("Fleet: memory", fleet_memory.measure),
    "fleet-control": ("Fleet: the control plane", fleet_control.measure),
    "fleet-kill": ("Fleet: a cell is killed", fleet_faults.measure_kill),
    "fleet-drain": ("Fleet: drain and rolling restart", fleet_faults.measure_drain),
}
GROWTH = "fleet-growth"
GROWTH_TITLE = "Fleet: how cost grows"
FOR_PEERS = ("fleet-steps", "fleet-rate")
COMMAND = "make bench-fleet"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = (*BENCHES, *FLEET, GROWTH, "fleet")
    parser.add_argument("names", nargs="*", choices=[[], *names], default=[])
    parser.add_argument("--write", action="store_true", help="write into docs/benchmarks.md and docs/benchmarks.json")
    _fleet_arguments(parser)
    options = parser.parse_args(arguments)
    wanted: list[str] = options.names or list(BENCHES)
    if "fleet" in wanted:
        wanted = [*(name for name in wanted if name != "fleet"), *_all_of_fleet(bool(options.peer))]
    known = figures()
    for name in wanted:
        if name in BENCHES:
            _one_server(name, options.write)
        else:
            _fleet(name, _options(options), known, options.write)
    return 0


def _all_of_fleet(peer: bool) -> Sequence[str]:
    return FOR_PEERS if peer else (*FLEET, GROWTH)


def _fleet_arguments(parser: argparse.ArgumentParser) -> None:
    given = parser.add_argument_group("benches of the fleet")
    default = Options()
    given.add_argument("--steps", type=_numbers, default=default.steps, help="calls at a time, e.g. 25,50,100")
    given.add_argument("--rates", type=_numbers, default=default.rates, help="calls a second, e.g. 20,50,100")
    given.add_argument("--seconds", type=float, default=default.seconds, help="how long each step is measured")
    given.add_argument("--rate-seconds", type=float, default=default.rate_s, help="how long each rate goes on")
    given.add_argument("--long-rate", type=int, default=default.long_rate, help="the rate that must last")
    given.add_argument("--long-seconds", type=float, default=default.long_rate_s, help="for so long")
    given.add_argument("--calls", type=int, default=default.calls, help="calls for fleet-kill and fleet-drain")
    given.add_argument("--agent-calls", type=int, default=default.agent_calls)
    given.add_argument("--memory-calls", type=int, default=default.memory_calls)
    given.add_argument("--total", type=int, default=default.total, help="calls in all of the long load (0: none)")
    given.add_argument("--several", action="store_true", help="single servers behind the edge instead of a fleet")
    given.add_argument("--peer", default="", metavar="HOST:PORT", help="any other SIP server instead of ours")
    given.add_argument("--peer-pid", type=int, default=0, metavar="PID", help="its process, for CPU and memory")


def _options(given: argparse.Namespace) -> Options:
    return replace(
        Options(),
        steps=given.steps,
        seconds=given.seconds,
        calls=given.calls,
        agent_calls=given.agent_calls,
        memory_calls=given.memory_calls,
        rates=given.rates,
        rate_s=given.rate_seconds,
        long_rate=given.long_rate,
        long_rate_s=given.long_seconds,
        total=given.total,
        peer=given.peer,
        peer_pid=given.peer_pid,
        several=given.several,
        plots=PLOTS if given.write and not given.peer else None,
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def _one_server(name: str, keep: bool) -> None:
    title, measure = BENCHES[name]
    with tempfile.TemporaryDirectory(prefix="sipserver-bench-") as folder:
        rows = measure(Path(folder))
    print(f"\n{title}\n\n{markdown(rows)}", flush=True)
    if keep:
        write(title, rows, f"make bench BENCH={name}")


def _fleet(name: str, options: Options, known: dict[str, dict[str, object]], keep: bool) -> None:
    if name == GROWTH:
        title, found = GROWTH_TITLE, fleet_growth.find(known)
    else:
        title, measure = FLEET[name]
        with tempfile.TemporaryDirectory(prefix="sipserver-bench-") as folder:
            found = measure(Path(folder), options)
    if options.peer:
        title, name = f"{title} ({options.peer})", f"{name} of {options.peer}"
    known[name] = found.figures
    print(f"\n{title}\n\n{found.markdown()}", flush=True)
    if keep:
        write_section(title, found.markdown(), f"{COMMAND} BENCH={name}")
        write_figures(name, found.figures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
