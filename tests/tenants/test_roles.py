"""The table of permissions: as the documentation shows it, and who may give which role."""

from __future__ import annotations

from pathlib import Path

import pytest

from sipserver.errors import CallerError
from sipserver.tenants.keys import ALL, Scope
from sipserver.tenants.roles import PERMISSIONS, Role, may_manage, role_of, table

DOCS = Path(__file__).parents[2] / "docs" / "security.md"


def test_the_documentation_shows_the_table() -> None:
    assert table() in DOCS.read_text(), f"docs/security.md should have:\n{table()}"


def test_owners_and_admins_may_do_everything_and_others_what_is_theirs() -> None:
    assert PERMISSIONS[Role.OWNER] == PERMISSIONS[Role.ADMIN] == ALL
    for role in set(Role) - {Role.OWNER, Role.ADMIN}:
        assert not PERMISSIONS[role] & {Scope.USERS_WRITE, Scope.WEBHOOKS_WRITE}
    assert not PERMISSIONS[Role.VIEWER] & {Scope.EVENTS_READ, Scope.RECORDINGS_READ}
    assert Scope.CALLS_READ not in PERMISSIONS[Role.AUDITOR]


def test_nobody_gives_a_role_above_his_own() -> None:
    assert all(may_manage(Role.OWNER, role) for role in Role)
    assert not may_manage(Role.ADMIN, Role.OWNER)
    assert all(may_manage(Role.ADMIN, role) for role in set(Role) - {Role.OWNER})


def test_a_role_that_there_is_not_is_told_with_those_that_there_are() -> None:
    assert role_of("viewer") is Role.VIEWER
    with pytest.raises(CallerError, match="owner, admin"):
        role_of("king")
