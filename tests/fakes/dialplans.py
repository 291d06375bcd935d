"""Dialplans as text, checked without a folder where no sound is played."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent

from sipserver import yaml_file
from sipserver.dialplan import load
from sipserver.dialplan.plan import Plan
from sipserver.errors import DialplanError


def report(text: str, file: Path = Path("acme.yaml")) -> load.Report:
    """What `check` says about a whole file's text."""
    return load.check_document(yaml_file.parse_text(dedent(text), file, DialplanError))


def plan(flows: str, *, routes: str = "- flow: main", head: str = "", file: Path = Path("acme.yaml")) -> Plan:
    """A plan of tenant acme; raises its first mistake."""
    found = report(written(flows, routes=routes, head=head), file)
    if found.plan is None:
        raise found.errors[0]
    return found.plan


def written(flows: str, *, routes: str = "- flow: main", head: str = "", tenant: str = "acme") -> str:
    """The text of a file. flows, routes: YAML without their key."""
    parts = [f"tenant: {tenant}", dedent(head).strip(), "flows:", indent(dedent(flows).strip("\n"), "  ")]
    return "\n".join([*(part for part in parts if part), "routes:", indent(dedent(routes).strip("\n"), "  "), ""])
