"""The keys that open recordings: the operator's master keys, and what follows from them for each tenant.

Owns how keys are written in the environment, a tenant's key (HKDF-SHA256, RFC 5869, of the master key and the tenant's
name, so that a cell needs no database), and how the key of a single file is wrapped by it (AES-256-GCM). Refuses to
know files. Pure, but for `load`; any thread. No key ever stands in a message.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sipserver.calls.settings import EncryptionSettings
from sipserver.errors import Damaged, KeyMissing, SettingsError

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
MOST_ID_BYTES = 32
_ID = re.compile(rf"[A-Za-z0-9_.-]{{1,{MOST_ID_BYTES}}}")
_PURPOSE = b"sipserver recordings 1\0"
_HOW = "make one with `echo NAME:$(openssl rand -base64 32)`"


@dataclass(frozen=True, slots=True)
class Wrapped:
    """The key of a file, as it stands in the file. key_id: of the master key."""

    key_id: str
    nonce: bytes
    sealed: bytes


class Keyring:
    """Master keys by their ids; the first one wraps, all of them unwrap. Without any it opens nothing."""

    def __init__(self, keys: Mapping[str, bytes] | None = None) -> None:
        self._keys = dict(keys or {})

    def __bool__(self) -> bool:
        return bool(self._keys)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._keys)

    @property
    def active(self) -> str:
        """The id of the key that wraps. Raises KeyMissing."""
        if not self._keys:
            raise KeyMissing("there is no key to encrypt with")
        return next(iter(self._keys))

    def wrap(self, tenant: str, file_key: bytes, about: bytes) -> Wrapped:
        """By the active key. about: what the wrapped key is bound to. Raises KeyMissing."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = AESGCM(self._of(self.active, tenant)).encrypt(nonce, file_key, _bound(self.active, about))
        return Wrapped(self.active, nonce, sealed)

    def unwrap(self, tenant: str, wrapped: Wrapped, about: bytes) -> bytes:
        """Raises KeyMissing, and Damaged when tenant, key or `about` are not those of `wrap`."""
        if wrapped.key_id not in self._keys:
            raise KeyMissing(f"it needs the key {wrapped.key_id}, which is not there", [wrapped.key_id])
        opening = AESGCM(self._of(wrapped.key_id, tenant))
        try:
            return opening.decrypt(wrapped.nonce, wrapped.sealed, _bound(wrapped.key_id, about))
        except InvalidTag:
            raise Damaged(
                f"its beginning was changed, or the key {wrapped.key_id} is another one than it was"
            ) from None

    def _of(self, key_id: str, tenant: str) -> bytes:
        derived = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=_PURPOSE + tenant.encode())
        return derived.derive(self._keys[key_id])


def parse(text: str, variable: str) -> Keyring:
    """`id:base64,id:base64`. variable: for the message. Raises SettingsError, which names the entry."""
    keys: dict[str, bytes] = {}
    for number, entry in enumerate(text.split(","), 1):
        key_id, colon, encoded = entry.strip().partition(":")
        if not colon or not _ID.fullmatch(key_id):
            raise _wrong(variable, number, "is not `id:base64`, the id of letters, digits, `_`, `.` and `-`")
        try:
            key = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise _wrong(variable, number, f"({key_id}) is not base64 after the colon") from None
        if len(key) != KEY_BYTES:
            raise _wrong(variable, number, f"({key_id}) has {len(key)} bytes, not {KEY_BYTES}")
        if key_id in keys:
            raise _wrong(variable, number, f"has the id {key_id} once more; give it another one")
        if key in keys.values():
            raise _wrong(variable, number, f"({key_id}) is the key of another entry")
        keys[key_id] = key
    return Keyring(keys)


def load(settings: EncryptionSettings) -> Keyring:
    """Of the environment. Raises SettingsError for what is no key, and for none where files are to be encrypted."""
    text = os.environ.get(settings.keys_env, "")
    if text.strip():
        return parse(text, settings.keys_env)
    if settings.enabled:
        reason = f"the variable {settings.keys_env} with the keys of recordings is not set: {_HOW}"
        raise SettingsError(reason, key="calls.encryption")
    return Keyring()


def _wrong(variable: str, number: int, what: str) -> SettingsError:
    return SettingsError(f"entry {number} of {variable} {what}: {_HOW}", key="calls.encryption")


def _bound(key_id: str, about: bytes) -> bytes:
    return key_id.encode() + b"\0" + about
