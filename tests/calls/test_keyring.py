"""Keys as they stand in the environment, and what opens with which."""

from __future__ import annotations

import base64

import pytest

from sipserver.calls import keyring
from sipserver.calls.keyring import Keyring, Wrapped
from sipserver.calls.settings import EncryptionSettings
from sipserver.errors import Damaged, KeyMissing, SettingsError

OLD, NEW = bytes(range(32)), bytes(range(1, 33))
FILE_KEY = b"k" * 32


def entry(key_id: str, key: bytes) -> str:
    return f"{key_id}:{base64.b64encode(key).decode()}"


def test_the_first_key_wraps_and_all_of_them_unwrap() -> None:
    old = Keyring({"old": OLD})
    wrapped = old.wrap("acme", FILE_KEY, b"about")
    both = keyring.parse(f"{entry('new', NEW)} , {entry('old', OLD)}", "KEYS")
    assert (both.active, both.ids) == ("new", ("new", "old"))
    assert both.unwrap("acme", wrapped, b"about") == FILE_KEY
    assert both.wrap("acme", FILE_KEY, b"about").key_id == "new"


@pytest.mark.parametrize(
    ("tenant", "about", "ring"),
    [
        ("acmf", b"about", {"old": OLD}),
        ("acme", b"abouT", {"old": OLD}),
        ("acme", b"about", {"old": NEW}),
    ],
)
def test_another_tenant_another_file_and_another_key_of_that_id_open_nothing(
    tenant: str, about: bytes, ring: dict[str, bytes]
) -> None:
    wrapped = Keyring({"old": OLD}).wrap("acme", FILE_KEY, b"about")
    with pytest.raises(Damaged):
        Keyring(ring).unwrap(tenant, wrapped, about)


def test_the_id_of_the_key_cannot_be_changed_to_that_of_the_same_key() -> None:
    wrapped = Keyring({"a": OLD}).wrap("acme", FILE_KEY, b"about")
    with pytest.raises(Damaged):
        Keyring({"b": OLD}).unwrap("acme", Wrapped("b", wrapped.nonce, wrapped.sealed), b"about")


def test_a_key_that_is_not_there_is_named() -> None:
    wrapped = Keyring({"old": OLD}).wrap("acme", FILE_KEY, b"about")
    with pytest.raises(KeyMissing, match="needs the key old") as missing:
        Keyring({"new": NEW}).unwrap("acme", wrapped, b"about")
    assert missing.value.key_ids == ("old",)
    with pytest.raises(KeyMissing):
        Keyring().wrap("acme", FILE_KEY, b"about")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothing", "entry 1 of KEYS is not `id:base64`"),
        (f"{entry('a', OLD)},", "entry 2 of KEYS is not"),
        (entry("a b", OLD), "entry 1 of KEYS is not"),
        (entry("x" * 33, OLD), "entry 1 of KEYS is not"),
        ("a:!!!!", r"entry 1 of KEYS \(a\) is not base64"),
        (entry("a", OLD)[:-1], r"entry 1 of KEYS \(a\) is not base64"),
        (entry("a", OLD[:16]), r"entry 1 of KEYS \(a\) has 16 bytes, not 32"),
        (f"{entry('a', OLD)},{entry('a', NEW)}", "entry 2 of KEYS has the id a once more"),
        (f"{entry('a', OLD)},{entry('b', OLD)}", r"entry 2 of KEYS \(b\) is the key of another"),
    ],
)
def test_what_is_no_key_is_refused_by_its_number_and_never_shown(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=f"^calls.encryption: {said}.*openssl rand -base64 32") as refused:
        keyring.parse(text, "KEYS")
    assert base64.b64encode(OLD).decode()[:20] not in str(refused.value)


def test_keys_are_needed_only_where_files_are_encrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEYS", raising=False)
    assert not keyring.load(EncryptionSettings(keys_env="KEYS"))
    with pytest.raises(SettingsError, match="the variable KEYS with the keys of recordings is not set"):
        keyring.load(EncryptionSettings(enabled=True, keys_env="KEYS"))
    monkeypatch.setenv("KEYS", entry("a", OLD))
    assert keyring.load(EncryptionSettings(keys_env="KEYS")).ids == ("a",), "old files are still read"
