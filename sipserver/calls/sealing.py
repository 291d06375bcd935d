"""The form of an encrypted recording: what stands where, and how its parts are sealed. Pure.

    0      header 0: identity, slot, zeros up to 4,096 bytes
    4096   header 1: the same identity and another slot, or zeros
    8192   chunks: each so many bytes of PCM and 16 bytes of tag; the last one is shorter, at least its tag

The identity never changes: a random id, channels, the chunks' size, the tenant, the file's name. A slot is the file's
own random key, wrapped by a key of the keyring; to change that key the other header is written, then the old one wiped,
so that one good header is there at every moment.

The chunks are the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár 2015): AES-256-GCM, the nonce is the chunk's
number and whether it is the last one, so that chunks cannot be swapped, repeated or left out, and the end not cut off,
without notice. What ends a file early, after a crash or when the disk is full, has a mark, and thereby a nonce, of its
own. Each nonce is used once: a chunk is sealed as MORE when it is full, and its number comes again at most as the LAST
or EARLY one; EARLY is always empty, so that it may be written twice.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sipserver.audio.frame import RATE_HZ
from sipserver.calls.keyring import KEY_BYTES, MOST_ID_BYTES, NONCE_BYTES, TAG_BYTES, Keyring, Wrapped
from sipserver.errors import Damaged, KeyMissing

MAGIC = b"SIPSREC1"
HEADER_BYTES = 4096
BODY_AT = 2 * HEADER_BYTES
ID_BYTES = 16
SAMPLE_BYTES = 2
CHUNK_MS = 500
"""What is lost with a process, and what is decrypted for one byte of it."""
MOST_CHUNK_BYTES = 1 << 20
MOST_TENANT_BYTES = 1024
MOST_NAME_BYTES = 255

_FIXED = struct.Struct(f">{len(MAGIC)}s{ID_BYTES}sBIHB")
_SLOT = struct.Struct(f">I{MOST_ID_BYTES}s{NONCE_BYTES}s{KEY_BYTES + TAG_BYTES}s")


class End(enum.IntEnum):
    """Whether a chunk ends the file. EARLY: whoever wrote it could not go on; there is nothing in it."""

    MORE = 0
    LAST = 1
    EARLY = 2


@dataclass(frozen=True, slots=True)
class Identity:
    """What a file is, for ever. chunk_bytes: of PCM in a whole chunk. name: of the file, without its folder; the call's
    id is in it.
    """

    id: bytes
    channels: int
    chunk_bytes: int
    tenant: str
    name: str

    def encode(self) -> bytes:
        """Raises ValueError for names that are too long."""
        tenant, name = self.tenant.encode(), self.name.encode()
        if len(tenant) > MOST_TENANT_BYTES:
            raise ValueError(f"a tenant's name of {len(tenant)} bytes")
        if len(name) > MOST_NAME_BYTES:
            raise ValueError(f"a file's name of {len(name)} bytes")
        sizes = len(tenant), len(name)
        return _FIXED.pack(MAGIC, self.id, self.channels, self.chunk_bytes, *sizes) + tenant + name


@dataclass(frozen=True, slots=True)
class Slot:
    """generation: the higher one of two is the newer."""

    generation: int
    wrapped: Wrapped


@dataclass(frozen=True, slots=True)
class Header:
    identity: Identity
    slot: Slot

    def encode(self) -> bytes:
        wrapped = self.slot.wrapped
        slot = _SLOT.pack(self.slot.generation, wrapped.key_id.encode(), wrapped.nonce, wrapped.sealed)
        return (self.identity.encode() + slot).ljust(HEADER_BYTES, b"\0")

    def open(self, ring: Keyring) -> bytes:
        """The file's key. Raises KeyMissing, Damaged."""
        return ring.unwrap(self.identity.tenant, self.slot.wrapped, _about(self.identity, self.slot.generation))


def close_header(identity: Identity, file_key: bytes, ring: Keyring, generation: int) -> Header:
    """The file's key, wrapped by the active key. Raises KeyMissing, ValueError."""
    wrapped = ring.wrap(identity.tenant, file_key, _about(identity, generation))
    return Header(identity, Slot(generation, wrapped))


def decode_header(block: bytes) -> Header | None:
    """None: there is none here, or not all of it. What was changed in it is found out by `Header.open`."""
    if len(block) < HEADER_BYTES:
        return None
    magic, file_id, channels, chunk_bytes, tenant_bytes, name_bytes = _FIXED.unpack_from(block)
    if magic != MAGIC or tenant_bytes > MOST_TENANT_BYTES or channels not in (1, 2):
        return None
    if not 0 < chunk_bytes <= MOST_CHUNK_BYTES or chunk_bytes % (channels * SAMPLE_BYTES):
        return None
    try:
        name_at = _FIXED.size + tenant_bytes
        slot_at = name_at + name_bytes
        tenant, name = block[_FIXED.size : name_at].decode(), block[name_at:slot_at].decode()
        generation, key_id, nonce, sealed = _SLOT.unpack_from(block, slot_at)
        wrapped = Wrapped(key_id.rstrip(b"\0").decode(), nonce, sealed)
    except UnicodeDecodeError:
        return None
    return Header(Identity(file_id, channels, chunk_bytes, tenant, name), Slot(generation, wrapped))


@dataclass(frozen=True, slots=True)
class Opened:
    """place: 0 or 1, the header whose key fitted."""

    identity: Identity
    file_key: bytes
    generation: int
    place: int
    key_id: str


def open_headers(blocks: bytes, ring: Keyring) -> Opened:
    """The newest header that opens, of the first BODY_AT bytes. Raises KeyMissing; Damaged when no key would help."""
    missing: list[str] = []
    damaged = Damaged("it is no encrypted recording, or its beginning was changed")
    for place, header in headers(blocks):
        try:
            file_key = header.open(ring)
        except KeyMissing as problem:
            missing += problem.key_ids
        except Damaged as problem:
            damaged = problem
        else:
            slot = header.slot
            return Opened(header.identity, file_key, slot.generation, place, slot.wrapped.key_id)
    if missing:
        raise KeyMissing(f"it needs the key {' or '.join(missing)}, which is not there", missing)
    raise damaged


def headers(blocks: bytes) -> list[tuple[int, Header]]:
    """Those that are there, with their places, the newer one first; nothing says that they are good."""
    parts = (blocks[:HEADER_BYTES], blocks[HEADER_BYTES:BODY_AT])
    found = [(place, header) for place, part in enumerate(parts) if (header := decode_header(part)) is not None]
    return sorted(found, key=lambda each: each[1].slot.generation, reverse=True)


class Body:
    """Seals and opens the chunks of one file."""

    def __init__(self, identity: Identity, file_key: bytes) -> None:
        self.chunk_bytes = identity.chunk_bytes
        self._about = identity.encode()
        self._cipher = AESGCM(file_key)

    def seal(self, number: int, end: End, payload: bytes) -> bytes:
        return self._cipher.encrypt(_nonce(number, end), payload, self._about)

    def open(self, number: int, end: End, sealed: bytes) -> bytes:
        """Raises Damaged."""
        try:
            return self._cipher.decrypt(_nonce(number, end), sealed, self._about)
        except InvalidTag:
            raise Damaged(f"chunk {number} was changed, moved or cut off") from None

    def at(self, number: int) -> int:
        """Where in the file this chunk begins."""
        return BODY_AT + number * (self.chunk_bytes + TAG_BYTES)

    def whole(self, size: int) -> int:
        """So many whole chunks may be in a file of this size; what follows them is the end, or torn."""
        return max(0, size - BODY_AT) // (self.chunk_bytes + TAG_BYTES)


def chunk_bytes(channels: int) -> int:
    return RATE_HZ * CHUNK_MS // 1000 * channels * SAMPLE_BYTES


def _about(identity: Identity, generation: int) -> bytes:
    return identity.encode() + generation.to_bytes(4, "big")


def _nonce(number: int, end: End) -> bytes:
    return number.to_bytes(NONCE_BYTES - 1, "big") + bytes([end])
