"""Where the secret of the audit log comes from."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from sipserver.errors import SettingsError
from sipserver.tenants import audit_secret
from sipserver.tenants.audit_secret import AuditSecret
from sipserver.tenants.settings import AuditSettings

LONG = "x" * 32
DERIVED = "a0ebbac756c222739d12e83c80299ca161df9c3ffb50a8f9cca76cb7b6246076"
"""By RFC 5869 from a secret of 32 zeros, for `acme`; worked out with HMAC alone."""


def load(file: Path, *, make: bool = True, **environment: str) -> AuditSecret:
    return audit_secret.load(AuditSettings(secret_file=file), make=make, environment=environment)


def test_each_tenant_has_a_secret_of_its_own() -> None:
    secret = AuditSecret(LONG.encode())
    assert secret.of("acme") == AuditSecret(LONG.encode()).of("acme")
    assert len({secret.of("acme"), secret.of("zenith"), AuditSecret(b"y" * 32).of("acme"), LONG.encode()}) == 4
    assert len(secret.of("acme")) == 32


def test_the_derivation_stays_as_it_is() -> None:
    """Another one would make every log seem broken."""
    assert AuditSecret(bytes(32)).of("acme").hex() == DERIVED


def test_the_environment_comes_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "audit.secret"
    assert load(file, SIPSERVER_AUDIT_SECRET=LONG).of("a") == AuditSecret(LONG.encode()).of("a")
    assert not file.exists()


def test_a_file_is_made_at_first_use_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "var" / "audit.secret"
    made = load(file).of("a")
    assert file.stat().st_mode & 0o777 == 0o600
    assert load(file, make=False).of("a") == made
    assert [each.name for each in file.parent.iterdir()] == ["audit.secret"]


def test_those_who_make_it_at_the_same_moment_have_the_same(tmp_path: Path) -> None:
    file, found = tmp_path / "audit.secret", set()
    ready = threading.Barrier(8)

    def make() -> None:
        ready.wait()
        found.add(load(file).of("a"))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1


def test_it_says_where_it_comes_from_and_whether_there_is_one(tmp_path: Path) -> None:
    file = tmp_path / "audit.secret"
    settings = AuditSettings(secret_file=file)
    assert not audit_secret.is_given(settings, {})
    assert load(file).origin == str(file)
    assert audit_secret.is_given(settings, {})
    assert load(file, SIPSERVER_AUDIT_SECRET=LONG).origin == "the variable SIPSERVER_AUDIT_SECRET"


def test_secrets_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "audit.secret"
    with pytest.raises(SettingsError, match="SIPSERVER_AUDIT_SECRET is not set"):
        load(file, make=False)
    with pytest.raises(SettingsError, match="the variable SIPSERVER_AUDIT_SECRET has 5 bytes"):
        load(file, SIPSERVER_AUDIT_SECRET="short")
    load(file)
    file.chmod(0o604)
    with pytest.raises(SettingsError, match="chmod 600"):
        load(file)
    file.chmod(0o600)
    file.write_text("short\n")
    with pytest.raises(SettingsError, match="5 bytes"):
        load(file)
    with pytest.raises(SettingsError, match="cannot be used"):
        load(file / "below")
