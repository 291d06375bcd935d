"""Asks the advisory database about the pinned packages (pip-audit). usage: python -m tools.audit

Exits 1 for a known vulnerability that requirements/audit-allow.txt does not name. Where the database cannot be reached
or does not answer for our packages, it says so and exits 0: a machine without internet can still run the checks.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FILES = ("requirements/constraints.txt", "requirements/models.txt")
ALLOW = ROOT / "requirements/audit-allow.txt"
LIMIT_S = 180


def report(file: str) -> list[dict[str, Any]] | None:
    """pip-audit's list of packages; None when it could not ask."""
    command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "-r", file, "-f", "json"]
    command += ["--progress-spinner", "off", "--timeout", "10"]
    try:
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        packages: list[dict[str, Any]] = json.loads(result.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, json.JSONDecodeError, KeyError):
        return None
    return packages


def main() -> int:
    allowed = {line.split("#")[0].strip() for line in ALLOW.read_text().splitlines()} if ALLOW.exists() else set()
    asked, known = 0, []
    for file in FILES:
        for package in report(file) or []:
            if "vulns" not in package:
                continue
            asked += 1
            for advisory in package["vulns"]:
                if not {advisory["id"], *advisory["aliases"]} & allowed:
                    fixed = ", ".join(advisory["fix_versions"]) or "no version yet"
                    known.append(f"{package['name']} {package['version']}: {advisory['id']}, fixed in {fixed}")
    if not asked:
        print("pip-audit: the advisory database is not reachable from here; nothing was audited")
        return 0
    print(f"pip-audit: {asked} packages asked about, {len(known)} with advisories")
    for line in known:
        print(f"  {line}")
    return 1 if known else 0


if __name__ == "__main__":
    sys.exit(main())
