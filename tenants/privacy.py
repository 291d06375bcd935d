"""What is kept about a person, given to them or erased: by their number, over calls, events, transcripts, recordings,
voicemail and webhooks.

Owns how a number may be written, the order (first the audit log says it, then it is done), and the file that is given.
Bills stay: usage names no numbers. The audit log keeps no number either, but a keyed digest of it. Refuses to know
tables.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import phonenumbers

from sipserver.errors import CallerError
from sipserver.store import transcript
from sipserver.store.persons import PersonRows
from sipserver.store.reader import CallRow, EventRow, Reader
from sipserver.tenants import sound_files
from sipserver.tenants.audit_log import AuditLog
from sipserver.tenants.person_sounds import Elsewhere, PersonSounds
from sipserver.tenants.retention import digest
from sipserver.tenants.sound_files import Opens

BATCH = 200
NUMBER_DIGITS = 7
"""What has so many digits and no letters is a telephone number; fewer are an extension, which is a user."""
_SIGNS = " -./()"
_WHICH = "of which country is the number? write it with + and the code, as +4930123456, or name the country, as DE"


@dataclass(frozen=True, slots=True)
class Erased:
    """running: calls of the person that are not over; ask again when they are. files: deleted by the machines that have
    them. messages: of webhooks.
    """

    calls: int
    files: int
    messages: int
    running: int


@dataclass(frozen=True, slots=True)
class Given:
    """elsewhere: calls with recordings or messages that are missing: on a machine that does not answer, or gone."""

    calls: int
    recordings: int
    elsewhere: int
    running: int


class Privacy:
    """Loop thread; files are read and written in threads. recordings: nothing outside this folder is given.
    opens: how one is read. elsewhere: None: there are no other machines.
    """

    def __init__(
        self,
        rows: PersonRows,
        reader: Reader,
        log: AuditLog,
        recordings: Path,
        opens: Opens = sound_files.plain,
        elsewhere: Elsewhere | None = None,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._rows, self._reader, self._log = rows, reader, log
        self._recordings, self._opens, self._elsewhere, self._clock = recordings, opens, elsewhere, clock

    async def erase(self, tenant: str, number: str, *, country: str = "", actor: str, source: str = "") -> Erased:
        """All that is kept about the number. Safe to cancel, and to do again. Raises CallerError for what is none."""
        users = forms(number, country)
        erased = files = messages = 0
        running = (await self._rows.find(tenant, users, limit=1)).running
        while ids := (await self._rows.find(tenant, users, limit=BATCH)).ids:
            detail = {"person": self._log.pseudonym(tenant, users[0]), "calls": len(ids), "ids_sha256": digest(ids)}
            await self._log.append(tenant, actor=actor, action="privacy.erased", detail=detail, source=source)
            gone = await self._rows.erase(ids, self._clock())
            erased, files, messages = erased + len(ids), files + gone.files, messages + gone.messages
        if not erased:
            detail = {"person": self._log.pseudonym(tenant, users[0]), "calls": 0}
            await self._log.append(tenant, actor=actor, action="privacy.erased", detail=detail, source=source)
        return Erased(erased, files, messages, running)

    async def export(
        self, tenant: str, number: str, file: Path | BinaryIO, *, country: str = "", actor: str, source: str = ""
    ) -> Given:
        """All that is kept about the number, as a ZIP file: a JSON file a call, sound, and `manifest.json` with what is
        returned. file: a path is made, for its owner alone, and is gone again when this raises. Raises CallerError for
        what is no number, OSError when the file cannot be written, or is there already, KeyMissing and Damaged for
        sound of this machine that cannot be opened.
        """
        users = forms(number, country)
        count, folder = 0, file.parent if isinstance(file, Path) else None
        with _writable(file) as out, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            detail = {"person": self._log.pseudonym(tenant, users[0])}
            await self._log.append(tenant, actor=actor, action="privacy.exported", detail=detail, source=source)
            running = (await self._rows.find(tenant, users, limit=1)).running
            sounds = PersonSounds(archive, folder, self._recordings, self._opens, self._elsewhere)
            async for call, events in self._calls(tenant, users):
                named = await sounds.put(call, events)
                told = _told(call, events, named)
                text = await asyncio.to_thread(json.dumps, told, default=str, indent=2)
                await asyncio.to_thread(archive.writestr, f"calls/{call.id}.json", text)
                count += 1
            given = Given(count, sounds.given, sounds.lacking, running)
            counts = json.dumps(dataclasses.asdict(given), indent=2)
            await asyncio.to_thread(archive.writestr, "manifest.json", counts)
        return given

    async def _calls(self, tenant: str, users: Sequence[str]) -> AsyncIterator[tuple[CallRow, list[EventRow]]]:
        after = ""
        while ids := (await self._rows.find(tenant, users, after=after, limit=BATCH)).ids:
            after = ids[-1]
            for call_id in ids:
                if (call := await self._reader.get(call_id)) is not None:
                    yield call, await self._reader.events(call_id, limit=100_000)


def forms(number: str, country: str = "") -> tuple[str, ...]:
    """How the number may stand in a record, the first one for its digest: +4930..., 4930..., 004930..., 030..., and as
    it is given. country: ISO 3166, of a number without `+`.

    Raises CallerError for what neither is a number nor a user, for a country that there is not, and for a number that
    without a country would be found only as it is given: nobody is told by mistake that nothing is kept.
    """
    region = country.strip().upper()
    if region and region not in phonenumbers.SUPPORTED_REGIONS:
        raise CallerError(f"there is no country {country!r}: it has two letters, as DE")
    given = number.strip().removeprefix("tel:")
    if not given or len(given) > 100 or not given.isprintable() or set(given) & set('"\\@<>'):
        raise CallerError("a number such as +4930123456, or a user, is needed")
    plain = "".join(sign for sign in given if sign not in _SIGNS)
    if given[0].isalpha():  # a user, whose digits are nobody's number
        return tuple(dict.fromkeys((given, plain)))
    try:
        parsed = phonenumbers.parse(given, region or None)
    except phonenumbers.NumberParseException:
        if not region and _is_number(given):
            raise CallerError(_WHICH) from None
        return tuple(dict.fromkeys((given, plain)))
    full = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
    local = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.NATIONAL)
    national = "".join(sign for sign in local if sign.isdigit())
    return tuple(dict.fromkeys((full, full[1:], f"00{full[1:]}", national, plain, given)))


def _is_number(text: str) -> bool:
    return sum(map(str.isdigit, text)) >= NUMBER_DIGITS and not any(map(str.isalpha, text))


@contextlib.contextmanager
def _writable(file: Path | BinaryIO) -> Iterator[BinaryIO]:
    if not isinstance(file, Path):
        yield file
        return
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        try:
            yield out
        except BaseException:
            file.unlink(missing_ok=True)
            raise


def _told(call: CallRow, events: Sequence[EventRow], sounds: Sequence[str]) -> dict[str, object]:
    said = [dataclasses.asdict(line) for event in events if (line := transcript.line(event)) is not None]
    happened = [{"seq": each.seq, "at_ms": each.at_ms, "kind": each.kind, "fields": each.fields} for each in events]
    return {"call": dataclasses.asdict(call), "recordings": sounds, "transcript": said, "events": happened}
