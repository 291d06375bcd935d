"""Where a server begins: reads the settings and starts what their `mode` asks for.

Owns that choice. Refuses to import either before it is made: a supervisor has no use for a telephone stack.
"""

from __future__ import annotations

from pathlib import Path

from sipserver import settings


def run(settings_file: Path) -> int:
    """Serve until a signal says stop; returns the exit code. Raises ConfigError, CarrierError (a port is taken)."""
    loaded = settings.load(settings_file)
    if loaded.mode == "fleet":
        from sipserver.fleet import main as fleet

        return fleet.run(loaded, settings_file)
    from sipserver import single

    return single.run(loaded)
