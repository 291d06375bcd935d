"""Whose dialplan is meant, which tenants there are, and that a key or a user of another one is warned of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sipserver.cli import dial, tenants
from sipserver.cli.main import main
from sipserver.errors import DialplanError, NotFound
from sipserver.settings import Settings, load
from tests.harness.audited import audited, make_database

PLAN = 'tenant: {tenant}\nflows: {{main: [hangup]}}\nroutes: [{{match: {{to: "*"}}, flow: main}}]\n'


def place(folder: Path, *plans: str, broken: bool = False) -> Path:
    """The settings file, with a dialplan for each of these tenants, and limits for one more."""
    file = folder / "sipserver.yaml"
    file.write_text(
        "store: {url: 'sqlite+aiosqlite:///records.db'}\naudit: {secret_file: audit.secret}\n"
        "dialplans: dialplans\ntenants: {limited: {agents: 3}}\n"
    )
    (folder / "dialplans").mkdir()
    for tenant in plans:
        (folder / f"dialplans/{tenant}.yaml").write_text(PLAN.format(tenant=tenant))
    if broken:
        (folder / "dialplans/wrong.yaml").write_text("tenant: [")
    return file


def test_the_only_tenant_need_not_be_named(tmp_path: Path) -> None:
    loaded = load(place(tmp_path, "acme"))
    assert tenants.of_dialplans(loaded, "") == tenants.of_dialplans(loaded, "acme") == "acme"
    with pytest.raises(NotFound, match="no dialplan is for the tenant 'nope'; there are acme"):
        tenants.of_dialplans(loaded, "nope")


def test_one_of_several_is_named(tmp_path: Path) -> None:
    loaded = load(place(tmp_path, "acme", "zenith"))
    assert tenants.of_dialplans(loaded, "zenith") == "zenith"
    with pytest.raises(NotFound, match=r"name a tenant \(--tenant\): acme, zenith"):
        tenants.of_dialplans(loaded, "")


def test_a_server_may_have_what_cannot_be_read_any_more(tmp_path: Path) -> None:
    loaded = load(place(tmp_path, "acme", broken=True))
    assert tenants.of_dialplans(loaded, "other") == "other"
    with pytest.raises(NotFound):
        tenants.of_dialplans(loaded, "No name")
    gone = loaded.model_copy(update={"dialplans": tmp_path / "none"})
    assert tenants.of_dialplans(gone, "acme") == "acme"
    with pytest.raises(DialplanError):
        tenants.of_dialplans(gone, "")


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    return int(stopped.value.code or 0)


class Server:
    """As `asking.Here`, without calls. asked: what it was to place."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, Any]] = []

    async def live(self) -> list[Any]:
        return []

    async def originate(self, wanted: Mapping[str, Any]) -> str:
        self.asked.append(wanted)
        return "c-1"


def test_a_call_is_placed_and_noted_for_the_tenant_whose_dialplan_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server()

    @asynccontextmanager
    async def running(_loaded: Settings) -> AsyncIterator[Server]:
        yield server

    async def answered(*_: object) -> bool:
        return True

    monkeypatch.setattr(dial, "running", running)
    monkeypatch.setattr(dial, "_follow", answered)
    file = place(tmp_path, "acme")
    asyncio.run(make_database(file))
    assert run("dial", "100", "--flow", "main", "--config", str(file)) == 0
    assert [wanted["tenant"] for wanted in server.asked] == ["acme"]
    asked, done = asyncio.run(audited(file, "acme"))
    assert (asked.action, asked.detail) == ("call.created.asked", {"flow": "main"})
    assert (done.action, done.subject) == ("call.created", "call:c-1")
    assert run("dial", "100", "--tenant", "nope", "--config", str(file)) == 1
    assert len(server.asked) == 1
    assert "'nope'" in capsys.readouterr().err
    assert asyncio.run(audited(file, "nope")) == []


KEY = ("keys", "create", "--name", "x")
USER = ("users", "create", "a@b.example", "--role", "owner", "--without-password")


@pytest.mark.parametrize("words", [KEY, USER])
def test_a_tenant_that_nothing_else_knows_is_warned_of(
    tmp_path: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(place(tmp_path, "acme"))
    for tenant in ("acme", "limited"):
        assert run(*words, "--tenant", tenant, "--config", file) == 0
        assert capsys.readouterr().err == ""
    assert run(*words, "--tenant", "nosuch", "--config", file) == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 1, "it is made"
    assert said.err == (
        "warning: neither a valid dialplan nor `tenants:` in the settings knows nosuch; there are acme, limited\n"
    )


@pytest.mark.parametrize(
    "words",
    [
        ("keys", "create", "--name", ""),
        ("keys", "create", "--name", " "),
        ("keys", "create", "--name", "x" * 101),
        ("keys", "create", "--name", "a\nb"),
        (*USER, "--name", "x" * 129),
        (*USER, "--name", "a\x1bb"),
    ],
)
def test_names_have_the_bounds_that_rest_has(
    tmp_path: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    file = place(tmp_path, "acme")
    asyncio.run(make_database(file))
    assert run(*words, "--tenant", "acme", "--config", str(file)) == 1
    assert "in one line" in capsys.readouterr().err
    assert asyncio.run(audited(file, "acme")) == []
