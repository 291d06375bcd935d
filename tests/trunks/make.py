"""Trunk settings for tests."""

from __future__ import annotations

from typing import Any

from sipserver.trunks.settings import TrunkSettings


def trunk(name: str = "carrier", **facts: Any) -> TrunkSettings:
    return TrunkSettings.model_validate({"name": name, "host": f"{name}.example", **facts})
