"""`python -m tools.bench [NAME ...] [--write]`: run benches and print their tables. Names: see `BENCHES`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tools.bench import call_cost, echo_delay, response, setup_time, speech
from tools.bench.report import Row, markdown, write

BENCHES: dict[str, tuple[str, Callable[[Path], Sequence[Row]]]] = {
    "echo": ("Echo round trip", echo_delay.measure),
    "setup": ("Call set-up", setup_time.measure),
    "cost": ("CPU and memory", call_cost.measure),
    "barge-in": ("Barge-in", response.measure_barge_in),
    "response": ("Response time of an agent", response.measure_response),
    "speech": ("Speech engines", speech.measure),
}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHES], default=[])
    parser.add_argument("--write", action="store_true", help="write the tables into docs/benchmarks.md")
    options = parser.parse_args(arguments)
    for name in options.names or list(BENCHES):
        title, measure = BENCHES[name]
        with tempfile.TemporaryDirectory(prefix="sipserver-bench-") as folder:
            rows = measure(Path(folder))
        print(f"\n{title}\n\n{markdown(rows)}", flush=True)
        if options.write:
            write(title, rows, f"make bench BENCH={name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
