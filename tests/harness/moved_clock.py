"""A time of day that a test moves, for every process of a fleet but Redis, which does not start with libfaketime."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.fleet import FleetProcess

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
NEEDS_LIBRARY = pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed")
TABLES_S = 60.0
"""libfaketime makes the reading of modules some twenty times dearer, and the first start of a database reads many."""
SEEN_S = 3.0
"""libfaketime looks for a new time once a second, and leases of 2 s would be gone."""


class Clock:
    def __init__(self, file: Path) -> None:
        self.file = file
        self.jump(0)

    def jump(self, seconds: int) -> None:
        """To so far from the real time of day; returns when everybody has seen it and what it breaks is broken."""
        self.file.write_text(f"{seconds:+d}s\n")
        time.sleep(SEEN_S)

    @contextmanager
    def running(self, fleet: FleetProcess) -> Iterator[FleetProcess]:
        """The fleet, started with this time of day, its database open, and stopped at the end."""
        fleet.runtime.mkdir(mode=0o700)
        fleet.redis.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LD_PRELOAD", str(LIBRARY))
            patch.setenv("FAKETIME_TIMESTAMP_FILE", str(self.file))
            patch.setenv("FAKETIME_CACHE_DURATION", "1")
            patch.setenv("DONT_FAKE_MONOTONIC", "1")
            fleet.start_supervisor()
        try:
            fleet.await_log("the database is open", TABLES_S)
            yield fleet
        finally:
            fleet.stop()
