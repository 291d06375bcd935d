"""SRTP with AES_CM_128_HMAC_SHA1_80 (RFC 3711) for the first 65,536 packets of a source: what a peer of a test needs.

AES comes from the system's libcrypto; there is no other one among what the tests install.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import hmac
import struct

TAG_BYTES = 10


class Srtp:
    """key: 16 bytes of master key and 14 of master salt, as SDES gives them (RFC 4568, 6.1). One direction."""

    def __init__(self, key: bytes) -> None:
        self._cipher, self._auth, self._salt = (
            _derived(key, label, size) for label, size in ((0, 16), (1, 20), (2, 14))
        )

    def protect(self, packet: bytes) -> bytes:
        sealed = self._crypted(packet)
        return sealed + self._tag(sealed)

    def unprotect(self, packet: bytes) -> bytes:
        """Raises ValueError for a packet with another key."""
        sealed, tag = packet[:-TAG_BYTES], packet[-TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(sealed)):
            raise ValueError("another key")
        return self._crypted(sealed)

    def _tag(self, sealed: bytes) -> bytes:
        rollovers = struct.pack("!I", 0)
        return hmac.new(self._auth, sealed + rollovers, hashlib.sha1).digest()[:TAG_BYTES]

    def _crypted(self, packet: bytes) -> bytes:
        _, _, sequence, _, ssrc = struct.unpack("!BBHII", packet[:12])
        header = 12 + 4 * (packet[0] & 0x0F)
        start = (int.from_bytes(self._salt, "big") << 16) ^ (ssrc << 64) ^ (sequence << 16)
        return packet[:header] + _aes_counter(self._cipher, start.to_bytes(16, "big"), packet[header:])


def _derived(key: bytes, label: int, size: int) -> bytes:
    """A session key (RFC 3711, 4.3.1) with a key derivation rate of zero."""
    start = (int.from_bytes(key[16:30], "big") ^ (label << 48)) << 16
    return _aes_counter(key[:16], start.to_bytes(16, "big"), bytes(size))


_crypto = ctypes.CDLL(ctypes.util.find_library("crypto") or "libcrypto.so.3")
_crypto.EVP_CIPHER_CTX_new.restype = ctypes.c_void_p
_crypto.EVP_aes_128_ctr.restype = ctypes.c_void_p
_crypto.EVP_CIPHER_CTX_free.argtypes = [ctypes.c_void_p]
_crypto.EVP_EncryptInit_ex.argtypes = [
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
]
_crypto.EVP_EncryptUpdate.argtypes = [
    ctypes.c_void_p,
    ctypes.c_char_p,
    ctypes.POINTER(ctypes.c_int),
    ctypes.c_char_p,
    ctypes.c_int,
]


def _aes_counter(key: bytes, start: bytes, plain: bytes) -> bytes:
    context = _crypto.EVP_CIPHER_CTX_new()
    try:
        crypted, size = ctypes.create_string_buffer(len(plain) + 16), ctypes.c_int()
        assert _crypto.EVP_EncryptInit_ex(context, _crypto.EVP_aes_128_ctr(), None, key, start) == 1
        assert _crypto.EVP_EncryptUpdate(context, crypted, ctypes.byref(size), plain, len(plain)) == 1
        return crypted.raw[: size.value]
    finally:
        _crypto.EVP_CIPHER_CTX_free(context)
