"""The first tables: calls and their events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "calls",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("tenant", sa.String(128), nullable=False),
        sa.Column("node", sa.String(128), nullable=False),
        sa.Column("run", sa.String(32), nullable=False),
        sa.Column("direction", sa.String(16), nullable=False),
        sa.Column("from_uri", sa.String(512), nullable=False),
        sa.Column("to_uri", sa.String(512), nullable=False),
        sa.Column("source", sa.String(128), nullable=False),
        sa.Column("sip_call_id", sa.String(512), nullable=False),
        sa.Column("route", sa.Integer),
        sa.Column("flow", sa.String(128)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("started_at", moment, nullable=False),
        sa.Column("answered_at", moment),
        sa.Column("ended_at", moment),
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
    )
    op.create_index("calls_started_at", "calls", ["started_at"])
    op.create_index("calls_tenant_started_at", "calls", ["tenant", "started_at"])
    op.create_index("calls_ended_at", "calls", ["ended_at"])
    op.create_index("calls_sip_call_id", "calls", ["sip_call_id"])
    op.create_table(
        "events",
        sa.Column("call_id", sa.String(64), sa.ForeignKey("calls.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("at_ms", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("fields", sa.JSON, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("events")
    op.drop_table("calls")
