"""What tenants may use, put together of the settings and of whoever counts for all processes."""

from __future__ import annotations

from sipserver.bus.contract import Bus, Draw
from sipserver.settings import Settings
from sipserver.tenants.allowances import Allowances


def of(loaded: Settings, bus: Bus) -> Allowances:
    return Allowances(loaded.tenants, bus.meters, bus.once.first, Draw)
