"""Where a server begins: reads the settings and starts what their `mode` asks for.

Owns that choice. Refuses to import either before it is made: a supervisor has no use for a telephone stack.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path

from sipserver import settings


def run(settings_file: Path) -> int:
    """Serve until a signal says stop; returns the exit code. Raises ConfigError, CarrierError (a port is taken)."""
    loaded = settings.load(settings_file)
    if loaded.mode == "fleet":
        with _imports_that_stay():
            from sipserver.fleet import main as fleet
        return fleet.run(loaded, settings_file)
    with _imports_that_stay():
        from sipserver import single
    return single.run(loaded)


@contextlib.contextmanager
def _imports_that_stay() -> Iterator[None]:
    """Nothing is collected within the block, and what it made is not looked at afterwards either: a fifth of a start
    went into looking for garbage among modules, again and again while they became more.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
