"""The tables: a row for each call, event, API key, user, session, version of a dialplan and entry of the audit log;
webhooks and what waits for them; what calls used, and what is kept of them; what is to be deleted; what was asked and
may be sent again. Works on SQLite and PostgreSQL.

Changing it means a new file in `migrations/versions`; a test compares the two.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """Aware datetimes in UTC, on SQLite too, which keeps no time zone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = sa.MetaData()
CRASHED = sa.text("end_reason = 'crash'")
"""Written out, not as a parameter: only so do databases see that the index of crashed calls will do."""
PENDING = sa.text("state = 'pending'")
"""Written out for the same reason: the index of webhooks' messages that wait."""
COUNTER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
"""SQLite counts by itself in a column that is called INTEGER alone, and with eight bytes all the same."""

calls = sa.Table(
    "calls",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("tenant", sa.String(128), nullable=False),
    sa.Column("node", sa.String(128), nullable=False),  # the server that has the call, and
    sa.Column("run", sa.String(32), nullable=False),  # its process: an open call of another run has crashed
    sa.Column("direction", sa.String(16), nullable=False),
    sa.Column("from_uri", sa.String(512), nullable=False),
    sa.Column("to_uri", sa.String(512), nullable=False),
    sa.Column("source", sa.String(128), nullable=False),
    sa.Column("sip_call_id", sa.String(512), nullable=False),
    sa.Column("route", sa.Integer),
    sa.Column("flow", sa.String(128)),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("answered_at", UtcDateTime),
    sa.Column("ended_at", UtcDateTime),
    sa.Column("end_reason", sa.String(64)),
    sa.Column("sip_code", sa.Integer),
    sa.Column("recording_path", sa.String(1024)),
    sa.Column("recording_status", sa.String(16)),
    sa.Column("mos", sa.Float),
    sa.Column("rtp_received", sa.Integer),
    sa.Column("rtp_lost", sa.Integer),
    sa.Column("jitter_ms", sa.Float),
    sa.Column("turns", sa.Integer, nullable=False),
    sa.Column("digits", sa.Integer, nullable=False),
    sa.Column("faults", sa.Integer, nullable=False),
    sa.Column("events", sa.Integer, nullable=False),
    sa.Column("events_dropped", sa.Integer, nullable=False),
    sa.Index("calls_started_at", "started_at"),
    sa.Index("calls_tenant_started_at", "tenant", "started_at"),
    sa.Index("calls_ended_at", "ended_at"),
    sa.Index("calls_sip_call_id", "sip_call_id"),
    sa.Index("calls_crashed", "run", postgresql_where=CRASHED, sqlite_where=CRASHED),
)

UNMETERED = sa.text("quantity > metered")
"""Written out for the same reason: the index of usage that nobody was told of."""

events = sa.Table(
    "events",
    metadata,
    sa.Column("call_id", sa.String(64), sa.ForeignKey("calls.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("at_ms", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("fields", sa.JSON, nullable=False),
    sa.Column("at_us", sa.BigInteger),  # since the epoch; grows with every event of a run
    sa.Index("events_at_us", "at_us"),
)

tenant_events = sa.Table(  # what belongs to no call; run: of the process that told it
    "tenant_events",
    metadata,
    sa.Column("run", sa.String(32), primary_key=True),
    sa.Column("at_us", sa.BigInteger, primary_key=True),  # since the epoch; grows with every event of a run
    sa.Column("tenant", sa.String(128), nullable=False),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("fields", sa.JSON, nullable=False),
    sa.Index("tenant_events_tenant", "tenant", "at_us"),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("tenant", sa.String(128), nullable=False),
    sa.Column("name", sa.String(128), nullable=False),
    sa.Column("scopes", sa.JSON, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("revoked_at", UtcDateTime),
    sa.Column("used_at", UtcDateTime),
    sa.Index("api_keys_tenant", "tenant", "created_at"),
)

webhook_endpoints = sa.Table(
    "webhook_endpoints",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("tenant", sa.String(128), nullable=False),
    sa.Column("url", sa.String(2048), nullable=False),
    sa.Column("kinds", sa.JSON, nullable=False),
    sa.Column("secret", sa.String(128), nullable=False),  # in clear: it signs
    sa.Column("secret_before", sa.String(128)),
    sa.Column("before_until", UtcDateTime),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("disabled_at", UtcDateTime),
    sa.Column("disabled_reason", sa.String(256)),
    sa.Column("dropped", sa.Integer, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
    sa.Column("held_since", UtcDateTime),
    sa.Column("held_until", UtcDateTime),
    sa.Index("webhook_endpoints_tenant", "tenant", "created_at"),
)

_endpoint = "webhook_endpoints.id"

webhook_lanes = sa.Table(  # one row for each call and endpoint with messages that wait: what a process claims
    "webhook_lanes",
    metadata,
    sa.Column("id", COUNTER, primary_key=True, autoincrement=True),
    sa.Column("endpoint_id", sa.String(32), sa.ForeignKey(_endpoint, ondelete="CASCADE"), nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("tenant", sa.String(128), nullable=False),
    sa.Column("due_at", UtcDateTime, nullable=False),
    sa.Column("lease", sa.String(32)),
    sa.Column("leased_until", UtcDateTime),
    sa.UniqueConstraint("endpoint_id", "name", name="webhook_lanes_name"),
    sa.Index("webhook_lanes_due", "due_at"),
    sa.Index("webhook_lanes_tenant", "tenant", "due_at"),
    sa.Index("webhook_lanes_leased", "leased_until"),
)

webhook_messages = sa.Table(
    "webhook_messages",
    metadata,
    sa.Column("number", COUNTER, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(64), nullable=False),
    sa.Column("endpoint_id", sa.String(32), sa.ForeignKey(_endpoint, ondelete="CASCADE"), nullable=False),
    sa.Column("tenant", sa.String(128), nullable=False),
    sa.Column("lane", sa.String(64), nullable=False),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("payload", sa.Text, nullable=False),  # empty once it is delivered
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("queued_at", UtcDateTime, nullable=False),
    sa.Column("settled_at", UtcDateTime),
    sa.Column("error", sa.String(256)),
    sa.UniqueConstraint("id", name="webhook_messages_id"),
    sa.Index(
        "webhook_messages_pending",
        "endpoint_id",
        "lane",
        "number",
        postgresql_where=PENDING,
        sqlite_where=PENDING,
    ),
    sa.Index("webhook_messages_state", "endpoint_id", "state", "number"),
    sa.Index("webhook_messages_settled", "settled_at"),
    sa.Index("webhook_messages_lane", "lane"),  # what is deleted with a call
)

webhook_attempts = sa.Table(
    "webhook_attempts",
    metadata,
    sa.Column("number", COUNTER, primary_key=True, autoincrement=True),
    sa.Column("message_id", sa.String(64), sa.ForeignKey("webhook_messages.id", ondelete="CASCADE"), nullable=False),
    sa.Column("endpoint_id", sa.String(32), nullable=False),
    sa.Column("tenant", sa.String(128), nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("status", sa.Integer),
    sa.Column("latency_ms", sa.Integer, nullable=False),
    sa.Column("error", sa.String(256)),
    sa.Column("answer", sa.Text, nullable=False),
    sa.Index("webhook_attempts_message", "message_id"),
    sa.Index("webhook_attempts_endpoint", "endpoint_id", "number"),
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("tenant", sa.String(128), primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True),  # 1, 2, 3 ... without gaps, for each tenant
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("actor", sa.String(256), nullable=False),
    sa.Column("action", sa.String(64), nullable=False),
    sa.Column("subject", sa.String(512), nullable=False),
    sa.Column("detail", sa.Text, nullable=False),  # JSON, kept to the letter: a seal is on it
    sa.Column("source", sa.String(128), nullable=False),
    sa.Column("previous", sa.String(64), nullable=False),
    sa.Column("mac", sa.String(64), nullable=False),
    sa.Index("audit_tenant_at", "tenant", "at"),
)

audit_heads = sa.Table(
    "audit_heads",
    metadata,
    sa.Column("tenant", sa.String(128), primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("last", sa.String(64), nullable=False),  # the mac of the entry of that number
    sa.Column("mac", sa.String(64), nullable=False),
)

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("tenant", sa.String(128), nullable=False),
    sa.Column("email", sa.String(254), nullable=False),  # case folded
    sa.Column("name", sa.String(128), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("password", sa.String(256)),  # argon2id; without one only the provider lets in
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("disabled_at", UtcDateTime),
    sa.Column("login_at", UtcDateTime),
    sa.Column("failed", sa.Integer, nullable=False),  # attempts since the last one that was right
    sa.Column("locked_until", UtcDateTime),
    sa.Column("issuer", sa.String(512)),
    sa.Column("subject", sa.String(255)),
    sa.UniqueConstraint("tenant", "email", name="users_email"),
    sa.UniqueConstraint("tenant", "issuer", "subject", name="users_subject"),
)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("digest", sa.String(64), primary_key=True),  # of the cookie, which nobody keeps
    sa.Column("id", sa.String(32), nullable=False),  # by which people name it
    sa.Column("user_id", sa.String(32), sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("seen_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False),
    sa.Column("source", sa.String(128), nullable=False),
    sa.Column("agent", sa.String(256), nullable=False),
    sa.UniqueConstraint("id", name="sessions_id"),
    sa.Index("sessions_user", "user_id", "created_at"),
    sa.Index("sessions_expires_at", "expires_at"),
)

dialplan_versions = sa.Table(
    "dialplan_versions",
    metadata,
    sa.Column("tenant", sa.String(128), primary_key=True),
    sa.Column(
        "number", sa.Integer, primary_key=True
    ),  # 1, 2, 3 ... for each tenant: two who change it want the same one
    sa.Column("name", sa.String(128), nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("actor", sa.String(256), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),  # empty: from here on there is none
    sa.Column("text", sa.Text, nullable=False),
)

usage = sa.Table(  # stays when the call's record is deleted: bills are made of it
    "usage",
    metadata,
    sa.Column("call_id", sa.String(64), primary_key=True),
    sa.Column("part", sa.String(32), primary_key=True),
    sa.Column("leg", sa.String(64), primary_key=True),
    sa.Column("engine", sa.String(128), primary_key=True),  # or the trunk
    sa.Column("vendor", sa.String(64), primary_key=True),
    sa.Column("model", sa.String(128), primary_key=True),
    sa.Column("tenant", sa.String(128), nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),  # when the call began
    sa.Column("quantity", sa.BigInteger, nullable=False),
    sa.Column("unit", sa.String(16), nullable=False),
    sa.Column("metered", sa.BigInteger, nullable=False),  # of the quantity, what was told as meter events, and
    sa.Column("metering", sa.BigInteger, nullable=False),  # what is being told
    sa.Index("usage_tenant_at", "tenant", "at", "call_id"),
    sa.Index("usage_unmetered", "tenant", "at", postgresql_where=UNMETERED, sqlite_where=UNMETERED),
)

stored = sa.Table(  # sound that is kept of calls: goes with it
    "stored",
    metadata,
    sa.Column("call_id", sa.String(64), sa.ForeignKey("calls.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("kind", sa.String(16), primary_key=True),  # recording, voicemail
    sa.Column("tenant", sa.String(128), nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Index("stored_tenant", "tenant", "bytes"),  # with all that a sum needs
)

doomed_files = sa.Table(  # what nobody refers to any more, until the machine that has it has deleted it
    "doomed_files",
    metadata,
    sa.Column("number", COUNTER, primary_key=True, autoincrement=True),
    sa.Column("tenant", sa.String(128), nullable=False),
    sa.Column("node", sa.String(128), nullable=False),
    sa.Column("call_id", sa.String(64), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("path", sa.String(1024), nullable=False),
    sa.Column("reason", sa.String(16), nullable=False),
    sa.Column("queued_at", UtcDateTime, nullable=False),
    sa.Column("due_at", UtcDateTime, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("error", sa.String(256)),
    sa.Index("doomed_files_due", "node", "due_at"),
)

duties = sa.Table(  # what one process does for all of them, and how long it is this one
    "duties",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("holder", sa.String(128), nullable=False),
    sa.Column("until", UtcDateTime, nullable=False),
)

idempotency_keys = sa.Table(  # a request that may be sent again, for a day: it is done once
    "idempotency_keys",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),  # of the tenant and its key: who writes it is the first
    sa.Column("tenant", sa.String(128), nullable=False),
    sa.Column("request", sa.String(64), nullable=False),
    sa.Column("claim", sa.String(32), nullable=False),
    sa.Column("call_id", sa.String(64), nullable=False),
    sa.Column("claimed_at", UtcDateTime, nullable=False),
    sa.Column("until", UtcDateTime, nullable=False),
    sa.Column("status", sa.Integer),
    sa.Column("headers", sa.JSON),
    sa.Column("answer", sa.Text),
    sa.Index("idempotency_keys_until", "until"),
)
