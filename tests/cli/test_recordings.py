"""`sipserver recordings` and what the doctor says of keys, with files that were really written."""

from __future__ import annotations

import base64
import json
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sipserver import settings
from sipserver.calls.keyring import Keyring
from sipserver.calls.sealed_writer import SealedWriter
from sipserver.cli.checks import Verdict
from sipserver.cli.main import main
from sipserver.cli.recording_checks import encryption
from sipserver.cli.recordings import app
from sipserver.errors import CallerError, ConfigError, Damaged, KeyMissing
from tests.calls.test_sealed_file import noise, wav_of

OLD, NEW = bytes(range(32)), bytes(range(1, 33))
PAYLOAD = noise(50_000)


def entry(key_id: str, key: bytes) -> str:
    return f"{key_id}:{base64.b64encode(key).decode()}"


BEFORE, BOTH, AFTER = entry("old", OLD), f"{entry('new', NEW)},{entry('old', OLD)}", entry("new", NEW)


class Place:
    """A settings file beside a folder of recordings."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.config = folder / "recordings", folder / "sipserver.yaml"
        self.config.write_text(
            "calls: {recordings: recordings, encryption: {enabled: true}}\n"
            "store: {url: 'sqlite+aiosqlite:///records.db'}\naudit: {secret_file: audit.secret}\n"
        )

    def write(self, name: str, tenant: str = "acme", key: bytes = OLD, key_id: str = "old") -> Path:
        path = self.folder / tenant / f"{name}.wav.enc"
        writer = SealedWriter(path, 1, tenant, Keyring({key_id: key}))
        writer.write(PAYLOAD)
        writer.close()
        return path

    def run(self, keys: str, *words: str) -> Result:
        environment = {"SIPSERVER_RECORDING_KEYS": keys, "SIPSERVER_AUDIT_SECRET": ""}
        return CliRunner().invoke(app, [*words, "--config", str(self.config)], env=environment, catch_exceptions=False)

    def doctor(self) -> list[tuple[Verdict, str]]:
        return [(found.verdict, found.what) for found in encryption(settings.load(self.config))]

    def audited(self) -> list[tuple[str, str, str]]:
        """As it stands in the database."""
        with closing(sqlite3.connect(self.config.parent / "records.db")) as database:
            return database.execute("SELECT tenant, action, detail FROM audit ORDER BY tenant").fetchall()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_all_files_get_the_new_key_and_the_audit_log_says_so(place: Place) -> None:
    files = [place.write("a"), place.write("b"), place.write("a", "globex")]
    place.write("c", key=NEW, key_id="new")
    dry = place.run(BOTH, "rewrap", "--dry-run")
    assert (dry.exit_code, dry.output) == (0, "3 files would get the key new, 1 have it\n")
    done = place.run(BOTH, "rewrap")
    assert (done.exit_code, done.output) == (0, "3 files got the key new, 1 had it\n")
    again = place.run(AFTER, "rewrap")
    assert (again.exit_code, again.output) == (0, "0 files got the key new, 4 had it\n")
    assert [(tenant, action, json.loads(detail)) for tenant, action, detail in place.audited()] == [
        ("acme", "recordings.rewrapped", {"files": 2, "key": "new"}),
        ("globex", "recordings.rewrapped", {"files": 1, "key": "new"}),
    ]
    for file in files:
        assert place.run(AFTER, "decrypt", str(file), "-o", f"{file}.wav").exit_code == 0
        assert Path(f"{file}.wav").read_bytes() == wav_of(PAYLOAD)


def test_files_that_cannot_be_opened_are_counted_and_named(place: Place) -> None:
    place.write("a")
    lost = {place.write(name, key_id="lost") for name in "bc"}
    broken = place.folder / "broken.wav.enc"
    broken.write_bytes(b"?")
    with (place.folder / "acme" / "d.wav.enc").open("wb"):
        pass
    done = place.run(BOTH, "rewrap")
    assert done.exit_code == 1
    assert done.stdout == "1 files got the key new, 0 had it\n"
    said = done.stderr.splitlines()
    at = said.index("2 files need the key lost, which is not in SIPSERVER_RECORDING_KEYS:")
    assert {Path(line) for line in said[at + 1 : at + 3]} == lost
    assert f"{broken}: it is no encrypted recording, or its beginning was changed\n" in done.stderr


def test_a_file_that_is_recorded_is_named(place: Place) -> None:
    writer = SealedWriter(place.folder / "a.wav.enc", 1, "acme", Keyring({"old": OLD}))
    done = place.run(BOTH, "rewrap")
    writer.close()
    assert (done.exit_code, done.stderr.strip()) == (
        1,
        f"{place.folder / 'a.wav.enc'}: it is being recorded; do it again when that is over",
    )
    assert place.run(BOTH, "rewrap").exit_code == 0


def test_a_decrypted_file_is_for_its_owner_and_replaces_nothing(place: Place, tmp_path: Path) -> None:
    path, out = place.write("a"), tmp_path / "out.wav"
    done = place.run(BEFORE, "decrypt", str(path), "--output", str(out))
    assert done.output == f"a.wav.enc of acme: {len(wav_of(PAYLOAD))} bytes in {out}\n"
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    with pytest.raises(CallerError, match="is there already"):
        place.run(BEFORE, "decrypt", str(path), "--output", str(out))


def test_what_is_damaged_leaves_nothing_behind(place: Place, tmp_path: Path) -> None:
    path, out = place.write("a"), tmp_path / "out.wav"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1000])
    with pytest.raises(Damaged, match="its end is missing"):
        place.run(BEFORE, "decrypt", str(path), "--output", str(out))
    assert place.run(BEFORE, "decrypt", str(path), "--output", str(out), "--unfinished").exit_code == 0
    assert wav_of(PAYLOAD)[44:].startswith(out.read_bytes()[44:])
    out.unlink()
    path.write_bytes(whole[:9000] + b"x" + whole[9001:])
    with pytest.raises(Damaged, match="chunk 0"):
        place.run(BEFORE, "decrypt", str(path), "--output", str(out))
    with pytest.raises(KeyMissing, match="needs the key old"):
        place.run(AFTER, "decrypt", str(path), "--output", str(out))
    with pytest.raises(CallerError, match="No such file"):
        place.run(AFTER, "decrypt", str(tmp_path / "none.wav.enc"), "--output", str(out))
    assert [each.name for each in tmp_path.iterdir() if "out" in each.name] == []


def test_without_keys_it_says_which_variable(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="SIPSERVER_RECORDING_KEYS"):
        place.run("", "rewrap")
    with pytest.raises(SystemExit) as ended:
        main(["recordings", "rewrap", "--config", str(place.config)])
    assert ended.value.code == 2
    assert "openssl rand -base64 32" in capsys.readouterr().err


def test_the_doctor_knows_keys_and_files_without(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIPSERVER_RECORDING_KEYS", raising=False)
    [(verdict, what)] = place.doctor()
    assert (verdict, "is not set" in what) == (Verdict.PROBLEM, True)
    place.write("a")
    place.write("b", key_id="lost")
    monkeypatch.setenv("SIPSERVER_RECORDING_KEYS", BOTH)
    assert place.doctor() == [
        (Verdict.PROBLEM, "1 files need the key lost"),
        (Verdict.WARNING, "1 files have an older key than new"),
    ]
    monkeypatch.setenv("SIPSERVER_RECORDING_KEYS", f"{entry('old', OLD)},{entry('lost', NEW)}")
    (place.folder / "acme" / "b.wav.enc").write_bytes(b"?")
    assert place.doctor() == [(Verdict.WARNING, "1 files cannot be read")]
    (place.folder / "acme" / "b.wav.enc").unlink()
    assert place.doctor() == [(Verdict.OK, "old encrypts; of 1 files none lacks its key")]
    place.config.write_text("calls: {recordings: recordings}\n")
    assert place.doctor() == [(Verdict.OK, "nothing new is encrypted; of 1 files none lacks its key")]
    (place.folder / "acme" / "a.wav.enc").unlink()
    assert place.doctor() == []
