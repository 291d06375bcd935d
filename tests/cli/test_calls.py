"""`sipserver calls`, on the records of calls that really ran."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sipserver.calls.states import State
from sipserver.cli.calls import app
from sipserver.errors import SipServerError
from sipserver.store.records import Records
from sipserver.store.settings import StoreSettings
from tests.calls.conftest import Stage
from tests.fakes.leg import FakeLeg, FakeOffer
from tests.harness.audited import audited

FLOW = "  main: [{say: Hello there.}, {collect: {digits: 4, timeout_s: 5, on: {none: end, other: end}}}]"


async def _make_calls(folder: Path) -> list[str]:
    """Two calls of acme; returns their ids, the older first."""
    records = Records(StoreSettings(url=f"sqlite+aiosqlite:///{folder}/calls.db"))
    await records.open()
    stage = Stage(folder)
    stage.recorder.open()
    stage.plan(FLOW)
    registry = stage.registry(records=records)
    ids = []
    for caller in ("alice", "bob"):
        leg = FakeLeg(FakeOffer(from_uri=f"sip:{caller}@example.org"))
        call = registry.begin(leg)
        ids.append(call.id)
        await stage.until(lambda leg=leg: leg.media, leg)  # type: ignore[misc]
        leg.press("4711")
        await stage.until(lambda call=call: call.state is State.ENDED, leg)  # type: ignore[misc]
    await stage.close()
    await records.close()
    return ids


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """(settings file, ids of the calls)."""
    folder = tmp_path_factory.mktemp("calls")
    file = folder / "sipserver.yaml"
    file.write_text("store: {url: 'sqlite+aiosqlite:///calls.db'}\naudit: {secret_file: audit.secret}\n")
    return file, asyncio.run(_make_calls(folder))


def run(made: tuple[Path, list[str]], *words: str) -> str:
    result = CliRunner().invoke(app, [*words, "--config", str(made[0])], env={"COLUMNS": "80"}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_list_shows_the_newest_first(made: tuple[Path, list[str]]) -> None:
    output = run(made, "list")
    older, newer = (call_id[-12:] for call_id in made[1])
    assert output.index(newer) < output.index(older)
    assert "alice" in output
    assert "dialplan_hangup" in output
    assert older not in run(made, "list", "-n", "1")
    assert newer not in run(made, "list", "--tenant", "somebody")


def test_list_as_json(made: tuple[Path, list[str]]) -> None:
    rows = json.loads(run(made, "list", "--json"))
    assert [row["id"] for row in rows] == list(reversed(made[1]))


def test_show_tells_the_whole_call_without_its_digits(made: tuple[Path, list[str]]) -> None:
    output = run(made, "show", made[1][0])
    for told in ("from sip:alice@example.org", "answered", "“Hello there.”", "pressed *", "digits = ****", "ended:"):
        assert told in output
    assert "4711" not in output
    assert "digits = 4711" in run(made, "show", made[1][0], "--private")


def test_show_finds_a_call_by_the_end_of_its_id_and_the_last_one(made: tuple[Path, list[str]]) -> None:
    older, newer = made[1]
    assert older in run(made, "show", older[-8:])
    assert newer in run(made, "show", "last")


def test_show_as_json_is_what_was_stored(made: tuple[Path, list[str]]) -> None:
    shown = json.loads(run(made, "show", made[1][0], "--json"))
    assert shown["call"]["id"] == made[1][0]
    assert [event["seq"] for event in shown["events"]] == list(range(len(shown["events"])))
    assert shown["events"][0]["kind"] == "call.started"
    assert shown["events"][-1]["kind"] == "call.ended"


@pytest.mark.parametrize(("wanted", "reason"), [("nobody", "no call with the id"), ("0", "write more of it")])
def test_an_id_that_names_no_call_or_several(made: tuple[Path, list[str]], wanted: str, reason: str) -> None:
    with pytest.raises(SipServerError, match=reason):
        run(made, "show", wanted)


# --- what the audit log has of it -------------------------------------------------------------------------------------


def noted(made: tuple[Path, list[str]]) -> list[tuple[str, str, str]]:
    return [(entry.actor, entry.action, entry.subject) for entry in asyncio.run(audited(made[0], "acme"))]


def test_who_reads_a_call_stands_in_the_audit_log_and_who_lists_them_does_not(made: tuple[Path, list[str]]) -> None:
    before = noted(made)
    run(made, "list")
    assert noted(made) == before
    run(made, "show", made[1][0])
    assert noted(made) == [*before, ("operator", "events.read", f"call:{made[1][0]}")]
    run(made, "tail", made[1][1])  # it is over: there are several looks, and one deed
    assert noted(made)[len(before) + 1 :] == [("operator", "events.read", f"call:{made[1][1]}")]


@pytest.mark.parametrize("words", [("show",), ("tail",)])
def test_what_cannot_be_noted_is_not_read(tmp_path: Path, words: tuple[str, ...]) -> None:
    """There are entries, and the secret that sealed them is not at hand: no other one takes its place."""
    file = tmp_path / "sipserver.yaml"
    file.write_text("store: {url: 'sqlite+aiosqlite:///calls.db'}\naudit: {secret_file: audit.secret}\n")
    calls = asyncio.run(_make_calls(tmp_path))
    run((file, calls), "show", calls[0])
    (tmp_path / "audit.secret").rename(tmp_path / "elsewhere")
    refused = CliRunner().invoke(app, [*words, calls[0], "--config", str(file)])
    assert isinstance(refused.exception, SipServerError)
    assert "there is no secret" in str(refused.exception)
    assert "Hello there" not in refused.output
    assert not (tmp_path / "audit.secret").exists()
    (tmp_path / "audit.secret").write_text("another secret that is long enough, too\n")
    (tmp_path / "audit.secret").chmod(0o600)
    refused = CliRunner().invoke(app, [*words, calls[0], "--config", str(file)])
    assert "sealed with another secret" in str(refused.exception)
    assert "Hello there" not in refused.output
