"""Both databases under the operations that lean on one most: calls, dialplans, keys, users, webhooks."""

from __future__ import annotations

from typing import Any

import pytest

from tests.servers.postgres import Postgres


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of a server: its database. A module whose server takes them runs once with each."""
    if request.param == "sqlite":
        return {}
    postgres: Postgres = request.getfixturevalue("postgres")
    return {"store": {"url": postgres.url(postgres.database(migrated=False))}}
