"""How many bytes of sound are kept of each call; of earlier calls what they used, as far as it is still there."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

_EARLIER = """
INSERT INTO stored (call_id, kind, tenant, bytes)
SELECT calls.id, {kind}, calls.tenant, SUM(usage.quantity)
FROM calls JOIN usage ON usage.call_id = calls.id AND usage.part = 'recording.size'
WHERE {there} GROUP BY calls.id, calls.tenant
"""
_MESSAGE = "EXISTS (SELECT 1 FROM events WHERE events.call_id = calls.id AND events.kind = 'voicemail.left')"


def upgrade() -> None:
    op.create_table(
        "stored",
        sa.Column("call_id", sa.String(64), sa.ForeignKey("calls.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("tenant", sa.String(128), nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
    )
    op.create_index("stored_tenant", "stored", ["tenant", "bytes"])
    recorded = "calls.recording_path IS NOT NULL"
    op.execute(_EARLIER.format(kind="'recording'", there=recorded))
    op.execute(_EARLIER.format(kind="'voicemail'", there=f"NOT ({recorded}) AND {_MESSAGE}"))
