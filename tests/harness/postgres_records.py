"""The call records of a fleet whose database is PostgreSQL, read by psql while it writes."""

from __future__ import annotations

import json
import subprocess
from typing import Any
from urllib.parse import urlsplit

from tests.harness.records import Record

_QUERY = """
SELECT coalesce(json_agg(row_to_json(found) ORDER BY found.started_at, found.id), '[]') FROM (
  SELECT calls.*, (SELECT coalesce(json_agg(json_build_array(kind, fields, seq) ORDER BY seq), '[]')
                   FROM events WHERE call_id = calls.id) AS told
  FROM calls WHERE {condition}) AS found
"""


def psql(url: str, statement: str, **variables: str) -> str:
    """What psql prints, unaligned and without headers; nothing while there are no tables. Blocks."""
    place = urlsplit(url)
    command = ["psql", "-X", "-q", "-A", "-t", "-h", place.hostname or "", "-p", str(place.port or 5432)]
    command += ["-U", place.username or "", "-d", place.path.lstrip("/")]
    for name, value in variables.items():
        command += ["-v", f"{name}={value}"]
    done = subprocess.run(command, input=statement, capture_output=True, text=True, check=False, timeout=20)
    if "does not exist" in done.stderr:
        return ""
    assert not done.stderr, done.stderr
    return done.stdout


def postgres_records(url: str, sip_call_id: str = "") -> list[Record]:
    """Calls in the order in which they began; with this Call-ID if one is given; none while there are no tables."""
    condition = "sip_call_id = :'wanted'" if sip_call_id else "true"
    told = psql(url, _QUERY.format(condition=condition), wanted=sip_call_id)
    if not told:
        return []
    rows: list[dict[str, Any]] = json.loads(told)
    return [
        Record(
            row["id"],
            row["sip_call_id"],
            row["end_reason"] or "",
            row["sip_code"] or 0,
            row["answered_at"] is not None,
            row["recording_path"] or "",
            row["recording_status"] or "",
            tuple((kind, fields) for kind, fields, _ in row["told"]),
            tuple(seq for _, _, seq in row["told"]),
        )
        for row in rows
    ]
