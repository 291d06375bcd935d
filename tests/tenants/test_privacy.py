"""A person's traces are found however their number is written, given whole, and erased with a proof; others stay."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import sqlalchemy as sa

from sipserver.errors import CallerError, Damaged
from sipserver.events import KINDS
from sipserver.store.database import Database
from sipserver.store.persons import NUMBERS, PersonRows
from sipserver.store.reader import Reader
from sipserver.store.schema import events
from sipserver.store.settings import StoreSettings
from sipserver.store.webhook_rows import State
from sipserver.tenants.privacy import Erased, Given, Privacy, forms
from tests.store.conftest import sqlite_settings, store_settings
from tests.tenants.test_retention import House

__all__ = ["sqlite_settings", "store_settings"]

NUMBER = "+49 30 123456"


@pytest.fixture
async def house(store_settings: StoreSettings, tmp_path: Path) -> AsyncIterator[House]:
    """Calls of somebody, from, to and by way of others; one that runs; and calls of others."""
    database = Database(store_settings)
    await database.open()
    made = House(database, tmp_path)
    await made.call("from", 3, from_uri="sip:+4930123456@carrier.example")
    await made.call("to", 2, to_uri="sip:030123456@pbx")
    await made.call("national", 2, from_uri="sip:004930123456@x")
    await made.call("party", 1)
    await made.call("runs", None, from_uri="sip:+4930123456@x")
    await made.call("longer", 1, from_uri="sip:+49301234567@x")
    await made.call("theirs", 1, tenant="zenith", from_uri="sip:+4930123456@x")
    await happened(made, "party", "party.dialed", to="sip:+4930123456@carrier.example")
    yield made
    await database.close()


def privacy(house: House) -> Privacy:
    return Privacy(
        PersonRows(house.database), Reader(house.database), house.audit, house.folder, clock=lambda: house.now
    )


async def test_what_is_erased_is_gone_and_what_is_of_others_stays(house: House) -> None:
    erased = await privacy(house).erase("acme", NUMBER, actor="operator")
    assert erased == Erased(calls=4, files=8, messages=0, running=1)
    assert await house.calls() == ["longer", "runs", "theirs"]
    assert await house.shredder.work(house.files, house.log) == 8
    assert house.there() == sorted(
        f"{kind}{name}.wav" for kind in ("", "message_") for name in ("longer", "runs", "theirs")
    )
    (proof,) = await house.proofs("privacy.erased")
    assert proof["calls"] == 4
    assert "30123456" not in json.dumps([proof, *await house.proofs("privacy.files_deleted")])
    again = await privacy(house).erase("acme", "030 123456", country="DE", actor="operator")
    assert again == Erased(calls=0, files=0, messages=0, running=1)
    first, second = await house.proofs("privacy.erased")
    assert first["person"] == second["person"], "it can be told that it was the same person"


async def happened(house: House, call_id: str, kind: str, seq: int = 9, **fields: Any) -> None:
    async with house.database.engine.begin() as connection:
        event = {"call_id": call_id, "seq": seq, "at_ms": seq, "kind": kind, "fields": fields}
        await connection.execute(sa.insert(events).values(**event))


async def test_words_of_an_event_are_nobodys_trace(house: House) -> None:
    """A flow, a step, a box, a word and typed digits may have the same letters as somebody's name or number."""
    await happened(house, "longer", "call.routed", 9, route=0, flow="menu", why="to menu")
    await happened(house, "longer", "step.entered", 10, flow="menu", index=0, step="menu")
    await happened(house, "longer", "variable.set", 11, name="menu", value="menu")
    await happened(house, "longer", "stt.transcript", 12, text="menu")
    await happened(house, "longer", "digit.sent", 13, digits="100")
    for word in ("menu", "100", "party-1"):
        assert await privacy(house).erase("acme", word, actor="operator") == Erased(0, 0, 0, 0), word
    assert "longer" in await house.calls()
    await happened(house, "longer", "queue.offered", 14, queue="menu", agent="sip:menu@10.0.0.1", waited_ms=1)
    assert (await privacy(house).erase("acme", "menu", actor="operator")).calls == 1


async def test_whoever_takes_part_is_found(house: House) -> None:
    rows, others = PersonRows(house.database), {"from", "national", "party", "to"}
    seq = 10
    for kind, names in NUMBERS.items():
        for name in names:
            assert set((await rows.find("acme", forms(NUMBER))).ids) == others, f"before {kind} {name}"
            text = "sip:+4930123456@carrier.example"
            if kind == "sip.message":
                text = f"INVITE sip:1@x SIP/2.0\r\nP-Asserted-Identity: <{text}>\r\n\r\n"
            await happened(house, "longer", kind, seq, **{name: text})
            assert set((await rows.find("acme", forms(NUMBER))).ids) == {*others, "longer"}, f"{kind} {name}"
            async with house.database.engine.begin() as connection:
                await connection.execute(sa.delete(events).where(events.c.seq == seq))
            seq += 1
    await happened(house, "longer", "party.dialed", seq, to="+4930123456")
    assert "longer" in (await rows.find("acme", forms(NUMBER))).ids, "a number without an address"
    await happened(house, "longer", "party.dialed", seq + 1, to="sip:zoë_%@x")
    assert (await rows.find("acme", ["zoë_%"])).ids == ("longer",), "letters that JSON or LIKE writes in its own way"


@pytest.mark.parametrize("call_id", ["longer", "theirs"])
async def test_a_message_that_is_no_text_keeps_nobody_from_being_found(house: House, call_id: str) -> None:
    """As an old PBX sends a name: its bytes are kept as halves of characters. In a call of another tenant, too."""
    text = 'INVITE sip:1@x SIP/2.0\r\nFrom: "M\udcfcller \\" <sip:+4930123456@x>\r\n\r\n'
    await happened(house, call_id, "sip.message", text=text)
    found = (await PersonRows(house.database).find("acme", forms(NUMBER))).ids
    assert set(found) == {"from", "national", "party", "to", *({call_id} - {"theirs"})}


def test_every_private_field_is_searched_or_holds_what_is_said() -> None:
    """A new kind of event, or field, belongs into one of the two."""
    private = {
        (kind, field.name)
        for kind, made in KINDS.items()
        for field in dataclasses.fields(made)
        if field.metadata.get("private")
    }
    searched = {(kind, name) for kind, names in NUMBERS.items() for name in names}
    assert private - searched == {
        ("bot.connected", "url"),
        ("digit.received", "digit"),
        ("digit.sent", "digits"),
        ("llm.span", "text"),
        ("stream.message", "text"),
        ("stt.transcript", "text"),
        ("tool.span", "arguments"),
        ("tool.span", "result"),
        ("tts.clause", "text"),
        ("tts.spoken", "heard"),
        ("tts.spoken", "text"),
        ("variable.set", "value"),
        ("voicemail.transcribed", "text"),
    }
    assert searched <= private


async def test_what_webhooks_have_is_erased_and_counted(house: House) -> None:
    await house.messages("from", State.DEAD, "call.started", "call.ended")
    await house.messages("longer", State.DEAD, "call.started")
    assert (await privacy(house).erase("acme", NUMBER, actor="operator")).messages == 2
    assert await house.queued() == ["longer call.started"]


async def test_what_is_given_is_whole(house: House, tmp_path: Path) -> None:
    file = tmp_path / "export.zip"
    (house.folder / "to.wav").unlink()
    (house.folder / "message_to.wav").unlink()
    given = await privacy(house).export("acme", NUMBER, file, actor="key:x", source="192.0.2.1")
    assert file.stat().st_mode & 0o777 == 0o600
    assert given == Given(calls=4, recordings=6, elsewhere=1, running=1)
    with zipfile.ZipFile(file) as archive:
        names = set(archive.namelist())
        assert {"calls/from.json", "calls/party.json", "recordings/from.wav", "recordings/message_from.wav"} <= names
        assert not any("longer" in name or "theirs" in name for name in names)
        assert archive.read("recordings/from.wav") == b"from.wav"
        told = json.loads(archive.read("calls/from.json"))
    assert told["call"]["from_uri"] == "sip:+4930123456@carrier.example"
    assert told["transcript"] == [{"at_ms": 1, "who": "caller", "text": "hello"}]
    assert [event["kind"] for event in told["events"]] == ["call.started", "stt.transcript", "voicemail.left"]
    assert await house.calls() == ["from", "longer", "national", "party", "runs", "theirs", "to"]
    assert len(await house.proofs("privacy.exported")) == 1


async def test_encrypted_sound_is_given_as_sound_of_the_tenant(house: House, tmp_path: Path) -> None:
    await house.call("sealed", 1, from_uri="sip:+4930123456@x", recording_path=str(house.folder / "sealed.wav.enc"))
    for name in ("sealed", "sealed-2"):
        (house.folder / f"{name}.wav.enc").write_bytes(b"sealed")
    (house.folder / "sealed.wav").unlink()
    asked: list[str] = []

    def opens(path: Path, tenant: str) -> BinaryIO:
        asked.append(tenant)
        return io.BytesIO(f"opened {path.name}".encode())

    giving = Privacy(PersonRows(house.database), Reader(house.database), house.audit, house.folder, opens)
    await giving.export("acme", NUMBER, tmp_path / "x.zip", actor="operator")
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.read("recordings/sealed.wav") == b"opened sealed.wav.enc"
        assert archive.read("recordings/sealed-2.wav") == b"opened sealed-2.wav.enc"
        told = json.loads(archive.read("calls/sealed.json"))["recordings"]
        assert told[:2] == ["recordings/sealed-2.wav", "recordings/sealed.wav"]
    assert set(asked) == {"acme"}


async def test_a_file_is_made_anew_and_goes_when_it_does_not_become_whole(house: House, tmp_path: Path) -> None:
    modes = []

    def damaged(path: Path, tenant: str) -> BinaryIO:
        modes.append(file.stat().st_mode & 0o777)
        raise Damaged("cut off")

    file = tmp_path / "x.zip"
    giving = Privacy(PersonRows(house.database), Reader(house.database), house.audit, house.folder, damaged)
    with pytest.raises(Damaged):
        await giving.export("acme", NUMBER, file, actor="operator")
    assert modes == [0o600]
    assert not file.exists()
    file.write_text("somebody's")
    with pytest.raises(FileExistsError):
        await giving.export("acme", NUMBER, file, actor="operator")
    assert file.read_text() == "somebody's"
    with pytest.raises(FileNotFoundError):
        await giving.export("acme", NUMBER, tmp_path / "none" / "x.zip", actor="operator")
    assert len(await house.proofs("privacy.exported")) == 1, "nothing was given, or begun, where there was no file"


async def test_files_elsewhere_are_not_given(house: House, tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(b"secret")
    await house.call("crafted", 1, from_uri="sip:+4930123456@x", recording_path=str(secret))
    await privacy(house).export("acme", NUMBER, tmp_path / "x.zip", actor="operator")
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert "recordings/secret.wav" not in archive.namelist()


def test_a_number_is_found_however_it_is_written() -> None:
    wanted = ("+4930123456", "4930123456", "004930123456", "030123456")
    for number, country in (("+49 30 123456", ""), ("+4930123456", ""), ("030/123456", "DE"), ("(030) 123-456", "DE")):
        assert set(wanted) <= set(forms(number, country)), number
        assert forms(number, country)[0] == "+4930123456"
    assert forms("030/123456", "de")[0] == "+4930123456"
    assert "030/123456" in forms("030/123456", "DE"), "as it is given"
    assert forms("tel:+49-30-123456")[0] == "+4930123456"


@pytest.mark.parametrize("user", ["alice", "sipserver", "100", "bob+4930123456", "alice7654321", "*97"])
@pytest.mark.parametrize("country", ["", "DE"])
def test_a_user_of_an_address_is_found_as_it_is(user: str, country: str) -> None:
    assert user in forms(user, country)
    if not country or user[0].isalpha():
        assert forms(user, country) == (user,)
    assert forms("1 00") == ("1 00", "100")


@pytest.mark.parametrize("number", ["030123456", "4930123456", "004930123456", "030 – 123456", "+030 123456"])
def test_a_number_whose_country_nobody_knows_is_refused(number: str) -> None:
    with pytest.raises(CallerError, match="of which country"):
        forms(number)
    assert number in forms(number, "DE")


@pytest.mark.parametrize("country", ["Germany", "XX", "49", "001"])
@pytest.mark.parametrize("number", ["+4930123456", "030123456", "alice"])
def test_a_country_that_there_is_not_is_refused(number: str, country: str) -> None:
    with pytest.raises(CallerError, match="there is no country"):
        forms(number, country)


def test_what_is_no_number_and_no_user_is_refused() -> None:
    for wrong in ("", "  ", 'a"b', "a@b", "x" * 101, "a\x00"):
        with pytest.raises(CallerError):
            forms(wrong)
