"""A request's deed in the audit log: what is asked before anything is changed, what came of it afterwards.

Owns this order: nothing is changed that does not stand in the log, nothing is given away before it stands there. A
process that dies in between, or a database that goes away, leaves `DEED.asked` without an outcome: then nobody of ours
knows it. Refuses to know the log, and what is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from pydantic import BaseModel

from sipserver.log import logger
from sipserver.tenants.principal import Principal

ASKED, FAILED = ".asked", ".failed"


class Note(Protocol):
    """Keeps an entry in the audit log, and answers its number. Raises when it does not stand there."""

    async def __call__(
        self, who: Principal, deed: str, subject: str, source: str, detail: Mapping[str, Any] | None = None
    ) -> int: ...


class Deed:
    """One request's. name: what the log calls it, e.g. `call.created`. of: what it is done to; which: its id; empty: it
    is only made. source: an address. Loop thread.
    """

    def __init__(self, note: Note, who: Principal, name: str, *, of: str, which: str, source: str) -> None:
        self._note, self._who, self._name, self._source = note, who, name, source
        self._of, self._which = of, which
        self._asked: int | None = None
        self._detail: Mapping[str, Any] = {}
        self._read = False
        self._log = logger("api")

    async def ask(self, detail: Mapping[str, Any]) -> None:
        """Before something is changed. Raises what keeps it out of the log: then it must not be done."""
        self._asked = await self._keep(ASKED, self._which, detail)
        self._detail = detail

    async def read(self, detail: Mapping[str, Any] | None = None) -> None:
        """Before something is given away, once. Raises as `ask`."""
        if not self._read:
            await self._keep("", self._which, detail or {})
            self._read = True

    async def done(self, made: str, detail: Mapping[str, Any]) -> None:
        """After the change. made: the id of what was made. It was done, so this raises nothing."""
        await self._came_of("", self._which or made, {**self._detail, **detail})

    async def failed(self, status: int) -> None:
        """It was refused, or broke: with a status of 500 and more a part of it may have been done."""
        await self._came_of(FAILED, self._which, {"status": status})

    async def _came_of(self, ending: str, which: str, detail: Mapping[str, Any]) -> None:
        try:
            await self._keep(ending, which, {"asked": self._asked, **detail})
        except Exception as problem:
            lost = {"action": self._name, "asked": self._asked, "error": type(problem).__name__}
            self._log.error("what came of a deed is missing in the audit log", tenant=self._who.tenant, **lost)

    async def _keep(self, ending: str, which: str, detail: Mapping[str, Any]) -> int:
        subject = f"{self._of}:{which}" if which else self._of
        return await self._note(self._who, self._name + ending, subject, self._source, detail)


def asked(body: BaseModel | None, shows: tuple[str, ...]) -> dict[str, Any]:
    """Those fields of a body that were given and may stand in a log that is never erased."""
    if body is None:
        return {}
    found = body.model_dump(mode="json", include=set(shows), exclude_unset=True)
    return {name: _bare(value) if name == "url" and value else value for name, value in found.items()}


def _bare(url: str) -> str:
    """Without what may be a password."""
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    except ValueError:
        return ""
