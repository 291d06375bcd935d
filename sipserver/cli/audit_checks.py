"""What `sipserver doctor` looks at of the audit log: whether its secret is one with which a server starts.

Owns the same kind of judgement as `checks`. Reads the ends of the logs; makes neither a database nor a secret.
"""

from __future__ import annotations

import asyncio

from sipserver.cli.checks import Finding, ok, problem, warning
from sipserver.errors import SettingsError
from sipserver.settings import Settings
from sipserver.store.audit import open_audit
from sipserver.store.database import UNAVAILABLE, brief
from sipserver.tenants import audit_secret
from sipserver.tenants.audit_log import AuditLog
from sipserver.tenants.audit_secret import AuditSecret

SUBJECT = "audit secret"
_TODO = "no server starts so: see the audit log in docs/security.md"


def secret(settings: Settings) -> list[Finding]:
    """Nothing where there is no database yet, and where a server will make its secret."""
    given, lacking = None, ""
    try:
        given = audit_secret.load(settings.audit, make=False)
    except SettingsError as wrong:
        if audit_secret.is_given(settings.audit):
            return [problem(SUBJECT, wrong.reason, _TODO)]
        lacking = wrong.reason
    try:
        return asyncio.run(_tried(settings, given, lacking))
    except SettingsError:  # no database yet, or one that other checks and the start speak of
        return []
    except UNAVAILABLE as wrong:
        return [warning(SUBJECT, f"the logs cannot be read: {brief(wrong)}", "is the database well?")]


async def _tried(settings: Settings, given: AuditSecret | None, lacking: str) -> list[Finding]:
    async with open_audit(settings.store) as rows:
        if given is None:
            what = f"there are logs, and {lacking}"
            return [problem(SUBJECT, what, "put the earlier one back")] if await rows.tenants() else []
        try:
            await AuditLog(rows, given).check()
        except SettingsError as wrong:
            return [problem(SUBJECT, wrong.reason, _TODO)]
        return [ok(SUBJECT, f"{given.origin}: the logs go on with it")]
