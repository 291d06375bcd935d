"""The server's side of SIP digest authentication (RFC 3261, section 22; RFC 7616; RFC 8760). Pure but for its clock.

Owns challenges, nonces and the check of what comes back: MD5 and SHA-256, `qop=auth` alone. Nonces are signed and say
when they were made, so that none is stored before somebody has used it; of used ones the highest nonce count is kept,
and a request that was heard on the wire cannot be sent again. Refuses to know who may do what.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

ALGORITHMS: Mapping[str, str] = {"SHA-256": "sha256", "MD5": "md5"}
"""Preferred first (RFC 8760, section 2.4), with hashlib's names."""

NONCE_S = 60.0
MOST_NONCES = 10_000
"""Used nonces whose count is kept. When there are more, the oldest go, and all that are older than these are stale."""

_LONGEST_HEADER = 4096
_FIELD = re.compile(r'\s*([A-Za-z0-9*_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))\s*(?:,|\Z)')
_HEX = re.compile(r"[0-9a-f]+")
_SIGNATURE_BYTES = 16
_CORE = re.compile(r"(?i)^(sips?:(?:[^@;?]*@)?(?:\[[^\]]*\]|[^:;?]*))")


class Proof(enum.StrEnum):
    """NOTHING: no digest credentials for our realm. STALE: maybe right, but the nonce is too old or was not ours: to be
    asked again (`stale=true`). WRONG: user, password or form. REPLAYED: the nonce count was seen before.
    """

    GOOD = "good"
    NOTHING = "nothing"
    STALE = "stale"
    WRONG = "wrong"
    REPLAYED = "replayed"


@dataclass(frozen=True, slots=True)
class Answer:
    """user: whoever it claims to be; proved only when GOOD."""

    proof: Proof
    user: str = ""


class DigestServer:
    """realm: of all challenges. secret: signs nonces; a new one makes all earlier ones stale. clock: seconds since the
    epoch. One thread.
    """

    def __init__(
        self, realm: str, *, secret: bytes = b"", nonce_s: float = NONCE_S, clock: Callable[[], float] = time.time
    ) -> None:
        self._realm = realm
        self._secret = secret or secrets.token_bytes(32)
        self._nonce_s = nonce_s
        self._clock = clock
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._oldest_ms = 0

    def challenges(self, *, stale: bool = False) -> tuple[str, ...]:
        """Values of the WWW-Authenticate headers of one 401, one for each algorithm, the preferred one first."""
        nonce = self._nonce()
        word = ", stale=true" if stale else ""
        return tuple(
            f'Digest realm="{self._realm}", nonce="{nonce}", algorithm={algorithm}, qop="auth"{word}'
            for algorithm in ALGORITHMS
        )

    def check(self, value: str, method: str, uri: str, password_of: Callable[[str], str | None]) -> Answer:
        """value: of the Authorization header; empty for none. uri: the request's. password_of: None for a user who does
        not exist. Never raises.
        """
        fields = parse(value)
        if fields is None or fields.get("realm") != self._realm:
            return Answer(Proof.NOTHING)
        user, nonce = fields.get("username", ""), fields.get("nonce", "")
        made_ms = self._made_ms(nonce)
        if made_ms is None:
            return Answer(Proof.STALE, user)  # of an earlier process, perhaps
        password = password_of(user)
        expected = _response(fields, method, password if password is not None else secrets.token_hex(8))
        given = fields.get("response", "").lower()
        right = expected is not None and hmac.compare_digest(expected.encode(), given.encode())
        if password is None or not right or not _same_target(fields.get("uri", ""), uri):
            return Answer(Proof.WRONG, user)
        age_ms = self._clock() * 1000 - made_ms
        if not -1000 <= age_ms <= self._nonce_s * 1000 or made_ms <= self._oldest_ms:
            return Answer(Proof.STALE, user)
        return Answer(Proof.GOOD if self._counted(nonce, made_ms, int(fields["nc"], 16)) else Proof.REPLAYED, user)

    def _nonce(self) -> str:
        head = int(self._clock() * 1000).to_bytes(8, "big") + secrets.token_bytes(8)
        return base64.urlsafe_b64encode(head + self._sign(head)).decode()

    def _made_ms(self, nonce: str) -> int | None:
        """None for a nonce that we did not make."""
        try:
            raw = base64.b64decode(nonce, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        head, signature = raw[:16], raw[16:]
        return int.from_bytes(head[:8], "big") if hmac.compare_digest(signature, self._sign(head)) else None

    def _sign(self, head: bytes) -> bytes:
        return hmac.digest(self._secret, head + self._realm.encode(), "sha256")[:_SIGNATURE_BYTES]

    def _counted(self, nonce: str, made_ms: int, count: int) -> bool:
        """Whether the count is higher than any before; it is remembered then."""
        if count <= self._counts.get(nonce, 0):
            return False
        self._counts[nonce] = count
        while len(self._counts) > MOST_NONCES:
            oldest, _ = self._counts.popitem(last=False)
            self._oldest_ms = max(self._oldest_ms, self._made_ms(oldest) or made_ms)
        return True


def parse(value: str) -> dict[str, str] | None:
    """The fields of a Digest header by lower-case name, None when it is none: another scheme, a field twice, anything
    that is no list of fields (RFC 7616, section 3.4).
    """
    scheme, _, rest = value.strip().partition(" ")
    if scheme.lower() != "digest" or len(value) > _LONGEST_HEADER:
        return None
    fields: dict[str, str] = {}
    at = 0
    while at < len(rest):
        found = _FIELD.match(rest, at)
        if found is None or found.end() == at:
            return None
        name, quoted, token = found.groups()
        if name.lower() in fields:
            return None
        fields[name.lower()] = re.sub(r"\\(.)", r"\1", quoted, flags=re.S) if quoted is not None else token
        at = found.end()
    return fields


def response(fields: Mapping[str, str], method: str, password: str) -> str | None:
    """What the right `response` field would be, lower-case hex; None when fields are missing or of another kind than we
    offer. fields: `parse`d.
    """
    return _response(fields, method, password)


def _response(fields: Mapping[str, str], method: str, password: str) -> str | None:
    algorithm = ALGORITHMS.get(fields.get("algorithm", "MD5").upper())
    count = fields.get("nc", "").lower()
    if algorithm is None or fields.get("qop", "").lower() != "auth":
        return None
    if len(count) != 8 or not _HEX.fullmatch(count) or not fields.get("cnonce"):
        return None

    def digest(text: str) -> str:
        return hashlib.new(algorithm, text.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()

    who = digest(f"{fields.get('username', '')}:{fields.get('realm', '')}:{password}")
    what = digest(f"{method}:{fields.get('uri', '')}")
    return digest(f"{who}:{fields.get('nonce', '')}:{fields['nc']}:{fields['cnonce']}:{fields['qop']}:{what}")


def _same_target(claimed: str, uri: str) -> bool:
    """Whether both name the same user and host. Proxies and phones differ in ports and parameters."""
    one, other = _CORE.match(claimed), _CORE.match(uri)
    return one is not None and other is not None and one.group(1).lower() == other.group(1).lower()
