"""The client's side of digest authentication, as a phone does it (RFC 7616, section 3.4)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from sipserver.trunks import digest


def credentials(
    challenge: str,
    user: str,
    password: str,
    uri: str,
    *,
    count: int = 1,
    method: str = "INVITE",
    changes: Mapping[str, str] | None = None,
) -> str:
    """The value of an Authorization header. challenge: value of WWW-Authenticate. changes: fields to be wrong."""
    fields = digest.parse(challenge)
    assert fields is not None
    fields |= {"username": user, "uri": uri, "cnonce": "abc", "qop": "auth", "nc": f"{count:08x}", **(changes or {})}
    word = "sha256" if fields.get("algorithm") == "SHA-256" else "md5"

    def hashed(text: str) -> str:
        return hashlib.new(word, text.encode()).hexdigest()

    first, second = hashed(f"{user}:{fields['realm']}:{password}"), hashed(f"{method}:{fields['uri']}")
    answer = hashed(f"{first}:{fields['nonce']}:{fields['nc']}:{fields['cnonce']}:{fields['qop']}:{second}")
    sent = {"response": answer, **fields}
    return "Digest " + ", ".join(f'{name}="{value}"' for name, value in sent.items() if name != "stale")


def challenges(answer: str) -> list[str]:
    """The values of all WWW-Authenticate headers of an answer, in their order."""
    return re.findall(r"(?mi)^WWW-Authenticate: (.*?)\r?$", answer)
