"""`sipserver token`: what it prints opens the gate, and what is missing is named."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from sipserver.bus.once import MemoryOnce
from sipserver.cli.main import main
from sipserver.errors import NotAllowed
from sipserver.gate.tokens import Claims, Tokens

SECRET = "a secret of at least thirty-two bytes"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A settings file, and the secret in the environment."""
    monkeypatch.setenv("SIPSERVER_TOKEN_SECRET", SECRET)
    file = tmp_path / "sipserver.yaml"
    file.write_text("gate: {token_s: 60}\n")
    return str(file)


def made(capsys: pytest.CaptureFixture[str], settings: str, *options: str) -> str:
    """The token that is printed."""
    with pytest.raises(SystemExit) as left:
        main(["token", *options, "--config", settings])
    assert left.value.code == 0
    return capsys.readouterr().out.strip()


def refused(capsys: pytest.CaptureFixture[str], settings: str, *options: str) -> str:
    """Why none is printed."""
    with pytest.raises(SystemExit) as left:
        main(["token", *options, "--config", settings])
    assert left.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    return " ".join(said.err.split())


def server(later_s: float = 0.0) -> Tokens:
    return Tokens(SECRET.encode(), MemoryOnce(), clock=lambda: time.time() + later_s)


async def used_twice(token: str) -> Claims:
    tokens = server()
    await tokens.claim(token, "voice")
    return await tokens.claim(token, "voice")


async def test_a_token_for_a_call(capsys: pytest.CaptureFixture[str], settings: str) -> None:
    options = ("--to", "demo", "--from", "anna", "--tenant", "acme", "--variable", "plan=gold=1")
    token = made(capsys, settings, "--use", "voice", *options)
    claims = server().read(token, "voice")
    assert (claims.to, claims.from_user, claims.tenant, claims.once) == ("demo", "anna", "acme", True)
    assert claims.variables == {"plan": "gold=1"}
    with pytest.raises(NotAllowed, match="has been used"):
        await used_twice(token)
    with pytest.raises(NotAllowed, match="is over"):
        server(later_s=61).read(token, "voice")


async def test_a_token_for_many_uses_and_for_long(capsys: pytest.CaptureFixture[str], settings: str) -> None:
    token = made(capsys, settings, "--use", "voice", "--to", "demo", "--lives", "3600", "--reusable")
    assert (await used_twice(token)).to == "demo"
    assert server(later_s=3500).read(token, "voice").to == "demo"


def test_a_token_for_events(capsys: pytest.CaptureFixture[str], settings: str) -> None:
    token = made(capsys, settings, "--use", "events", "--tenant", "acme")
    assert server().read(token, "events").tenant == "acme"


def test_what_is_missing_is_named(
    capsys: pytest.CaptureFixture[str], settings: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "--tenant" in refused(capsys, settings, "--use", "events")
    assert "--to" in refused(capsys, settings, "--use", "webrtc")
    assert "--variable" in refused(capsys, settings, "--use", "voice", "--to", "demo", "--variable", "plan")
    assert "--use" in refused(capsys, settings, "--use", "twilio", "--to", "demo")
    monkeypatch.setenv("SIPSERVER_TOKEN_SECRET", "short")
    assert "has 5 bytes" in refused(capsys, settings, "--use", "voice", "--to", "demo")
    monkeypatch.delenv("SIPSERVER_TOKEN_SECRET")
    assert "SIPSERVER_TOKEN_SECRET is not set" in refused(capsys, settings, "--use", "voice", "--to", "demo")
