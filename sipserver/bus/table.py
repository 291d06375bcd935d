"""Which backend the settings ask for."""

from __future__ import annotations

from importlib import import_module

from sipserver.bus.contract import Bus
from sipserver.bus.memory import MemoryBus
from sipserver.bus.settings import BusSettings


def preload(settings: BusSettings) -> None:
    """Import what `make` will need, before a fork, so that the children share it."""
    if settings.url:
        import_module("sipserver.bus.redis_bus")


def make(settings: BusSettings, *, node: str, run: str) -> Bus:
    """The bus of one process, not yet open. Make it after the fork."""
    if not settings.url:
        return MemoryBus(node=node, run=run)
    from sipserver.bus.redis_bus import RedisBus

    return RedisBus(settings, node=node, run=run)
