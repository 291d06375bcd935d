"""The shipped settings file is the default and names every option; mistakes name key and line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from sipserver.agent.settings import LlmSettings
from sipserver.errors import SettingsError
from sipserver.settings import DEFAULT_FILE, Settings, load
from sipserver.sip.settings import SipTls
from sipserver.sip.sip_trunks import SipTrunks
from sipserver.speech.settings import SttSettings, TtsSettings
from sipserver.trunks.settings import CallerIdentity, Credentials, DigestUser, Registration, TrunkSettings

SHIPPED = Path(__file__).parent.parent / DEFAULT_FILE
_COMMENTED = re.compile(r"^(\s+)# (?=( {2})?(- )?[{]?[a-z_]+:( |$))", re.MULTILINE)
_EXAMPLE = re.compile(r"^(\s*)# (\w+: \{.*\})$", re.MULTILINE)


def _loaded(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "sipserver.yaml"
    file.write_text(text)
    return load(file)


def test_the_shipped_file_is_the_default() -> None:
    assert load(SHIPPED) == Settings().resolved(SHIPPED.parent)


def _options(model: type[BaseModel]) -> set[str]:
    names: set[str] = set()
    for name, field in model.model_fields.items():
        names.add(name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names |= _options(field.annotation)
    return names


FLEET = SHIPPED.parent / "sipserver-fleet.yaml"


def test_the_shipped_files_name_every_option() -> None:
    wanted = _options(Settings)
    for union in (SttSettings, TtsSettings, LlmSettings):
        for engine in get_args(get_args(union)[0]):
            wanted |= _options(engine)
    for nested in (TrunkSettings, Registration, Credentials, CallerIdentity, DigestUser, SipTls):
        wanted |= {field.alias or name for name, field in nested.model_fields.items()}
    text = SHIPPED.read_text() + FLEET.read_text()
    assert {name for name in wanted if not re.search(rf"\b{name}\b", text)} == set()


def test_the_shipped_trunks_are_valid(tmp_path: Path) -> None:
    commented = SHIPPED.read_text().partition("\n# trunks:\n")[2].partition("\n\n")[0]
    text = "trunks:\n" + re.sub(r"(?m)^# ", "", commented)
    settings = _loaded(tmp_path, text)
    assert [trunk.name for trunk in settings.trunks] == ["carrier", "backup", "pbx", "phones"]
    SipTrunks(settings.sip, settings.trunks, dict.fromkeys(re.findall(r"password_env: (\w+)", text), "secret"))


def test_the_shipped_fleet_is_valid_with_what_stands_there_as_a_comment(tmp_path: Path) -> None:
    assert load(FLEET).mode == "fleet"
    text = _COMMENTED.sub(r"\1", FLEET.read_text())
    settings = _loaded(tmp_path, text)
    assert settings.edge.rtpengine is not None
    assert settings.edge.tls is not None
    assert [trunk.name for trunk in settings.trunks] == ["here", "carrier", "office"]


def test_the_examples_in_the_shipped_file_are_valid(tmp_path: Path) -> None:
    text, count = _EXAMPLE.subn(r"\1\2", SHIPPED.read_text())
    settings = _loaded(tmp_path, text)
    assert count >= 6
    assert {"local", "ollama", "vllm", "openai"} <= settings.llm.keys()


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    settings = _loaded(
        tmp_path,
        "dialplans: plans\nstore: {url: 'sqlite+aiosqlite:///calls.db'}\n"
        "calls: {recordings: /r}\naudit: {secret_file: s}",
    )
    assert settings.dialplans == tmp_path / "plans"
    assert settings.store.url == f"sqlite+aiosqlite:///{tmp_path / 'calls.db'}"
    assert settings.calls.recordings == Path("/r")
    assert settings.audit.secret_file == tmp_path / "s"


def test_a_secret_that_is_too_short_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_TOKENS", "x" * 32)
    for name, variable in (("gate", "OF_TOKENS"), ("audit", "OF_AUDIT")):
        text = f"{name}: {{secret_env: {variable}}}"
        _loaded(tmp_path, text)
        monkeypatch.setenv(variable, "short")
        with pytest.raises(SettingsError, match=f"{name}: the secret in {variable} has 5 bytes"):
            _loaded(tmp_path, text)


def test_recordings_of_a_fleet_have_another_port_than_everybody(tmp_path: Path) -> None:
    for port in (0, 8079):
        assert _loaded(tmp_path, f"http: {{port: 8080}}\nfleet: {{files_port: {port}}}").fleet.files_port == port
    with pytest.raises(SettingsError, match=r"fleet.files_port is http.port"):
        _loaded(tmp_path, "http: {port: 8080}\nfleet: {files_port: 8080}")


def test_other_databases_keep_their_url(tmp_path: Path) -> None:
    url = "postgresql+asyncpg://localhost/calls"
    assert _loaded(tmp_path, f"store: {{url: '{url}'}}").store.url == url


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sip:\n  host: 127.0.0.1\n  prot: 5060", "3: sip.prot: unknown key"),
        ("sip: {port: many}", "1: sip.port: should be a whole number"),
        ("sip: {port: 70000}", "1: sip.port: should be less than or equal to 65535"),
        ("llm:\n  local: {vendor: llama_cpp, contxt: 1}", "2: llm.local.contxt: unknown key"),
        ("llm:\n  big:\n    vendor: openai", "2: llm.big.model: this key is required"),
        ("llm:\n  big:\n    vendor: opnai\n", "3: llm.big.vendor: should be one of 'llama_cpp', 'openai'"),
        (
            "speech:\n  stt:\n    whisper: {vendor: whisper, workers: 0}",
            "3: speech.stt.whisper.workers: should be greater",
        ),
        ("speech: {tts: [piper]}", "1: speech.tts: should be a mapping"),
        ("log: {level: loud}", "1: log.level: should be 'debug', 'info', 'warning' or 'error'"),
        ("http: 8080", "1: http: should be a mapping"),
        ("- sip", "1: should be a mapping"),
    ],
)
def test_a_mistake_names_key_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        _loaded(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'sipserver.yaml'}:{message}")


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert _loaded(tmp_path, "") == Settings().resolved(tmp_path)


def test_settings_do_not_change(tmp_path: Path) -> None:
    settings: Any = _loaded(tmp_path, "")
    with pytest.raises(ValueError, match="frozen"):
        settings.mode = "fleet"


@pytest.mark.parametrize("name", ["Acme", "-", "a b"])
def test_a_tenant_that_no_dialplan_can_have_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "sipserver.yaml"
    file.write_text(f"tenants: {{'{name}': {{calls: 1}}}}\n")
    with pytest.raises(SettingsError, match="a tenant's name has small letters"):
        load(file)
