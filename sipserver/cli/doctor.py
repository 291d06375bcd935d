"""`sipserver doctor`: would a call be answered and spoken to on this machine, and if not, what is to be done?"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from sipserver import environment_file
from sipserver import settings as settings_file
from sipserver.cli import (
    audit_checks,
    fleet_checks,
    gate_checks,
    recording_checks,
    tables,
    trunk_checks,
    webhook_checks,
)
from sipserver.cli.checks import CHECKS, Finding, Verdict, ok, problem, warning
from sipserver.errors import ConfigError

COLOURS = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.PROBLEM: "red"}


def doctor(
    config: Annotated[Path, typer.Option(help="The settings file.", metavar="FILE")] = settings_file.DEFAULT_FILE,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check ports, settings, dialplans, models, PJSIP and the machine. Exit code 1 if something would stop a call."""
    findings = examine(config)
    stopped = any(finding.verdict is Verdict.PROBLEM for finding in findings)
    if as_json:
        typer.echo(json.dumps({"ok": not stopped, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        _print(findings)
    raise typer.Exit(int(stopped))


def examine(config: Path) -> list[Finding]:
    """All findings, in order of the table. Blocks for some seconds. Never raises for what is wrong with the machine."""
    try:
        settings = settings_file.load(config)
    except ConfigError as wrong:
        return [problem("settings", str(wrong), "correct the file, or name another with --config")]
    checks = (
        *CHECKS,
        recording_checks.encryption,
        audit_checks.secret,
        trunk_checks.trunks,
        gate_checks.gate,
        fleet_checks.fleet,
        webhook_checks.webhooks,
    )
    findings = [finding for check in checks for finding in check(settings)]
    return [ok("settings", str(config)), *_environment(config), *findings]


def _environment(config: Path) -> list[Finding]:
    file = environment_file.beside(config)
    if not file.is_file():
        return []
    if environment_file.read_by_others(file):
        return [warning("environment", f"everybody may read {file}", f"chmod 600 {file}")]
    return [ok("environment", str(file))]


def _print(findings: list[Finding]) -> None:
    tables.show(("", "subject", "found", "what to do"), map(_facts, findings), whole=("",))


def _facts(finding: Finding) -> tuple[str | Text, ...]:
    verdict = Text(finding.verdict, style=COLOURS[finding.verdict])
    return (verdict, finding.subject, Text(finding.what), Text(finding.todo))
