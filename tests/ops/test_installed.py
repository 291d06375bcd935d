"""The settings that docs/operations.md tells to install: whatever a server writes lies where its unit lets it write."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from sipserver.settings import Settings, load
from tests.ops.test_units import service

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs/operations.md").read_text()
CONFIG = Path("/etc/sipserver")
INSTALLS = [
    ("Install as a service", "sipserver.yaml", "sipserver"),
    ("A fleet", "sipserver-fleet.yaml", "sipserver-fleet"),
]


def told(chapter: str) -> dict[str, Any]:
    """The first YAML of a chapter: what is to be set in the copied file."""
    text = OPERATIONS.partition(f"\n## {chapter}\n")[2].partition("\n## ")[0]
    found = re.search(r"```yaml\n(.*?)```", text, re.S)
    assert found, chapter
    return dict(yaml.safe_load(found[1]))


def installed(chapter: str, copied: str) -> Settings:
    """The copied file with what is told, as it is understood at its place."""
    document = yaml.safe_load((ROOT / "etc" / copied).read_text())
    for key, value in told(chapter).items():
        document[key] = {**document.get(key, {}), **value} if isinstance(value, dict) else value
    return Settings.model_validate(document).resolved(CONFIG)


def paths(of: BaseModel, name: str = "") -> Iterator[tuple[str, Path]]:
    """Of all settings, with the names of their keys."""
    for key in type(of).model_fields:
        value = getattr(of, key)
        if isinstance(value, BaseModel):
            yield from paths(value, f"{name}{key}.")
        elif isinstance(value, Path):
            yield f"{name}{key}", value


def written(settings: Settings) -> dict[str, Path]:
    """Key -> where the server writes, by its settings; and the models, which it reads."""
    found = dict(paths(settings))
    if settings.store.url.startswith("sqlite"):
        found["store.url"] = Path(settings.store.url.partition(":///")[2])
    if settings.mode == "single":
        del found["edge.folder"]  # there is no edge
    assert {"audit.secret_file", "bus.spool", "calls.recordings", "fleet.runtime", "speech.models"} <= found.keys()
    return found


@pytest.mark.parametrize(("chapter", "copied", "unit"), INSTALLS)
def test_what_is_written_lies_where_the_unit_may_write(chapter: str, copied: str, unit: str) -> None:
    of = service(unit)
    assert of["ProtectSystem"] == ["strict"]
    runtime = [Path("/run") / name for line in of.get("RuntimeDirectory", []) for name in line.split()]
    writable = [*(Path("/var/lib") / name for name in of["StateDirectory"]), *runtime]
    found = written(installed(chapter, copied))
    assert found.pop("speech.models").is_relative_to("/opt/sipserver")
    assert not {key: str(path) for key, path in found.items() if not any(map(path.is_relative_to, writable))}


@pytest.mark.parametrize("file", ["etc/demo.yaml", "etc/sipserver.yaml", "tools/pbx/sipserver.yaml"])
def test_what_a_checkout_writes_lies_in_its_var(file: str) -> None:
    found = written(load(ROOT / file))
    del found["dialplans"]
    assert not {key: str(path) for key, path in found.items() if not path.is_relative_to(ROOT / "var")}
