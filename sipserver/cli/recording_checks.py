"""What `sipserver doctor` looks at where recordings are encrypted: the keys, and whether they open what is there.

Owns the same kind of judgement as `checks`. Reads the beginnings of files, no sound.
"""

from __future__ import annotations

import itertools
from collections import Counter

from sipserver.calls import keyring, rewrap
from sipserver.cli.checks import Finding, ok, problem, warning
from sipserver.errors import Damaged, KeyMissing, SettingsError
from sipserver.settings import Settings

SUBJECT = "recording keys"
MOST_FILES = 20_000
"""Looked at: a few seconds."""


def encryption(settings: Settings) -> list[Finding]:
    """Nothing where nothing is, or was, encrypted."""
    wanted = settings.calls.encryption
    try:
        ring = keyring.load(wanted)
    except SettingsError as wrong:
        return [problem(SUBJECT, wrong.reason, "docs/security.md says how; set it in the service's environment file")]
    missing: Counter[str] = Counter()
    damaged, older, looked = 0, 0, 0
    for path in itertools.islice(rewrap.files(settings.calls.recordings), MOST_FILES):
        looked += 1
        try:
            older += not rewrap.look(path, ring).current
        except KeyMissing as lacking:
            missing[lacking.key_ids[0]] += 1
        except (OSError, Damaged):
            damaged += 1
    found = [
        problem(SUBJECT, f"{count} files need the key {key_id}", f"put it behind the others in {wanted.keys_env}")
        for key_id, count in sorted(missing.items())
    ]
    if damaged:
        found.append(warning(SUBJECT, f"{damaged} files cannot be read", "`sipserver recordings rewrap` names them"))
    if older:
        what = f"{older} files have an older key than {ring.active}"
        found.append(warning(SUBJECT, what, "`sipserver recordings rewrap`, before that key goes"))
    if not found and (wanted.enabled or looked):
        about = f"{ring.active} encrypts" if wanted.enabled else "nothing new is encrypted"
        found.append(ok(SUBJECT, f"{about}; of {looked} files none lacks its key"))
    return found
