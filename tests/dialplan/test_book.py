"""Many tenants: who takes a call, what the engines must hold ready, and who may have which tenant."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.dialplan import book
from sipserver.dialplan.book import Book
from sipserver.dialplan.facts import CallFacts
from sipserver.dialplan.plan import FixedText
from sipserver.errors import DialplanError
from tests.fakes.dialplans import plan, written

NOW = datetime(2026, 11, 23, 8, 30, tzinfo=UTC)  # Monday, 09:30 in Berlin
AGENT = """
agents:
  ada:
    prompt: You are Ada.
    greeting: "Hello, {{really}}."
    filler: Wait.
    nudge: "Still there, {from}?"
    apology: ""
    stt: [fast, slow]
    llm: {use: big, fallback: [small]}
    tts: {use: piper, voice: joe, fallback: [espeak, cloud]}
"""
TALK = """
main:
  - agent: {use: ada, on: {failed: end}}
  - say: {text: Bye., tts: own}
  - say: Hi {from}
  - say: Plain.
"""


def to(user: str) -> CallFacts:
    return CallFacts(user, source="127.0.0.1:5060")


def test_what_steps_say_to_anybody_is_a_fixed_text() -> None:
    found = plan(
        """
        main:
          - conference: {room: a, announce: Somebody., language: de, on: {failed: next}}
          - queue: {name: a, position_say: Please wait., voice: joe, on: {failed: next}}
          - transfer: {to: 1, mode: warm, announce: "From {from}.", on: {failed: next}}
          - transfer: {to: 1, mode: warm, announce: A call., tts: own, on: {failed: next}}
          - voicemail: {box: a, greeting: Hello.}
        """,
        head="queues: {a: {agents: [1]}}",
    )
    assert list(found.texts()) == [
        FixedText("Somebody.", "", "", "de"),
        FixedText("Please wait.", "", "joe", "en"),
        FixedText("A call.", "own", "", "en"),
        FixedText("Hello.", "", "", "en"),
    ]
    unknown = Book((found,)).unknown_engines(("whisper",), (), ())
    assert [str(problem) for problem in unknown] == [
        "acme.yaml:8: flows.main[3].transfer.tts: the settings have no engine `own` under `speech.tts`"
    ]


def test_the_first_route_of_the_first_plan_that_matches_wins() -> None:
    first = plan("a: [answer]\nb: [answer]", routes="- {match: {to: 1*}, flow: a}\n- {match: {to: 11}, flow: b}")
    second = plan("c: [answer]", routes="- flow: c", file=Path("b.yaml"))
    both = Book((first, second))
    routed = both.route(to("11"), NOW)
    assert routed is not None
    assert (routed.plan, routed.route, routed.flow.name, routed.why) == (first, 0, "a", "to=1*")
    other = both.route(to("2"), NOW)
    assert other is not None
    assert (other.plan, other.flow.name, other.why) == (second, "c", "always")
    assert Book((first,)).route(to("2"), NOW) is None
    assert Book().route(to("2"), NOW) is None


NUMBER = st.sampled_from(["1", "11", "12", "2", "1*", "?1", "[12]", "*"])


@given(
    routes=st.lists(st.lists(st.one_of(NUMBER, NUMBER.map("!{}".format)), min_size=1, max_size=3), max_size=6),
    cut=st.integers(0, 6),
    called=st.sampled_from(["1", "11", "12", "2", "21", "[12]", ""]),
)
def test_whoever_is_asked_first_is_found_as_if_all_were_asked(routes: list[list[str]], cut: int, called: str) -> None:
    parts = [part for part in (routes[:cut], routes[cut:]) if part]
    plans = tuple(
        plan(
            "main: [answer]",
            routes="\n".join(f"- {{match: {{to: {json.dumps(globs)}}}, flow: main}}" for globs in part),
            file=Path(f"{number}.yaml"),
        )
        for number, part in enumerate(parts)
    )
    asked = ((one, index) for one in plans if (index := one.route(to(called), NOW)) is not None)
    found = Book(plans).route(to(called), NOW)
    assert (None if found is None else (found.plan, found.route)) == next(asked, None)


def test_hours_are_in_the_zone_of_the_plan() -> None:
    routes = "- {match: {hours: mon 09:00-10:00}, flow: main}"
    assert Book((plan("main: [answer]", routes=routes, head="timezone: Europe/Berlin"),)).route(to("1"), NOW)
    assert not Book((plan("main: [answer]", routes=routes, head="timezone: UTC"),)).route(to("1"), NOW)


def test_a_call_starts_with_the_plans_variables_and_its_own_facts() -> None:
    found = plan("main: [answer]", head="variables: {name: Acme}").start_variables(to("100"), "id-1")
    assert found["name"] == "Acme"
    assert (found["to"], found["tenant"], found["call_id"], found["source"]) == ("100", "acme", "id-1", "127.0.0.1")


def test_agents_and_fixed_texts_are_known() -> None:
    found = Book((plan(TALK, head=AGENT), plan("main: [say: Plain.]", file=Path("b.yaml"))))
    assert [(owner.tenant, name, spec.stt) for owner, name, spec in found.agents()] == [
        ("acme", "ada", ("fast", "slow"))
    ]
    (_owner, _name, spec), *_ = found.agents()
    assert spec.greeting == "Hello, {really}."
    assert list(found.texts()) == [
        FixedText("Hello, {really}.", "piper", "joe", "en"),
        FixedText("Wait.", "piper", "joe", "en"),
        FixedText("Bye.", "own", "", "en"),
        FixedText("Plain.", "", "", "en"),
    ]


def test_engines_that_the_settings_do_not_have_are_named_with_their_line() -> None:
    found = Book((plan(TALK, head=AGENT),)).unknown_engines(stt={"fast"}, tts={"piper", "espeak"}, llm={"small"})
    assert [str(problem) for problem in found] == [
        "acme.yaml:9: agents.ada.stt: the settings have no engine `slow` under `speech.stt`",
        "acme.yaml:10: agents.ada.llm.use: the settings have no engine `big` under `llm`",
        "acme.yaml:11: agents.ada.tts.fallback: the settings have no engine `cloud` under `speech.tts`",
        "acme.yaml:15: flows.main[1].say.tts: the settings have no engine `own` under `speech.tts`",
    ]


def test_the_engine_of_an_announcement_is_one_too() -> None:
    transfer = "transfer: {to: '1', mode: warm, announce: Hello., tts: cloud}"
    talk = f"main:\n  - agent: {{use: ada, {transfer}, on: {{failed: end}}}}"
    found = Book((plan(talk, head="agents: {ada: {prompt: x}}"),))
    assert [str(problem) for problem in found.unknown_engines(stt={"whisper"}, tts={"piper"}, llm={"local"})] == [
        "acme.yaml:5: flows.main[0].agent.transfer.tts: the settings have no engine `cloud` under `speech.tts`"
    ]
    assert FixedText("Hello.", "cloud", "", "en") in list(found.plans[0].texts())


@pytest.mark.parametrize("step", ["amd: {transcript: true}", "voicemail: {box: a}"])
def test_steps_that_have_something_written_down_need_an_engine_for_it(step: str) -> None:
    found = Book((plan(f"main: [{{{step}}}]"),))
    assert found.plans[0].transcribers() == ("whisper",)
    (problem,) = found.unknown_engines(stt={"other"}, tts={"piper"}, llm={"local"})
    assert f"acme.yaml:3: flows.main[0].{step.partition(':')[0]}" in str(problem)
    assert str(problem).endswith("the settings have no engine `whisper` under `speech.stt`")
    assert found.unknown_engines(stt={"whisper"}, tts={"piper"}, llm={"local"}) == ()


def test_an_amd_by_ear_needs_no_engine() -> None:
    found = Book((plan("main: [amd]"),))
    assert found.plans[0].transcribers() == ()
    assert found.unknown_engines(stt=(), tts=(), llm=()) == ()


VOICE = "transfer: {to: '1', mode: warm, announce: Hello., accept_by: %s, on: {failed: next}}"


@pytest.mark.parametrize("accept_by", ["voice", "either"])
def test_a_target_that_accepts_by_voice_needs_an_engine(accept_by: str) -> None:
    found = Book((plan(f"main:\n  - answer\n  - {VOICE % accept_by}"),))
    assert [str(problem) for problem in found.unknown_engines(stt={"other"}, tts={"piper"}, llm=())] == [
        "acme.yaml:5: flows.main[1].transfer.accept_by: the settings have no engine `whisper` under `speech.stt`"
    ]
    assert found.unknown_engines(stt={"whisper"}, tts={"piper"}, llm=()) == ()
    assert found.plans[0].transcribers() == ("whisper",)


def test_a_target_that_accepts_by_a_key_needs_none() -> None:
    found = Book((plan(f"main:\n  - answer\n  - {VOICE % 'digit'}"),))
    assert found.unknown_engines(stt=(), tts={"piper"}, llm=()) == ()
    assert found.plans[0].transcribers() == ()


def test_a_target_of_an_agent_is_written_down_by_the_engines_of_the_agents() -> None:
    transfer = VOICE.replace(", on: {failed: next}", "") % "voice"
    talk = f"main:\n  - agent: {{use: ada, {transfer}, on: {{failed: end}}}}"
    found = Book((plan(talk, head="agents: {ada: {prompt: x, stt: [fast, slow]}}"),))
    assert found.plans[0].transcribers() == ("fast", "slow")


def test_the_default_fallback_need_not_exist() -> None:
    found = Book((plan(TALK.replace(", tts: own", ""), head="agents: {ada: {prompt: x}}"),))
    assert found.unknown_engines(stt={"whisper"}, tts={"piper"}, llm={"local"}) == ()


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(written("main: [answer]", tenant="beta"))
    (tmp_path / "a.yml").write_text(written("main: [answer]", tenant="alpha"))
    (tmp_path / "c.yaml").write_text(written("main: [answr]", tenant="gamma"))
    (tmp_path / "d.yaml").write_text(written("main: [answer, hangup, answer]", tenant="alpha"))
    (tmp_path / ".hidden.yaml").write_text("nonsense: [")
    (tmp_path / "notes.txt").write_text("nonsense: [")
    (tmp_path / "folder.yaml").mkdir()
    reading = book.read(tmp_path)
    assert [plan.tenant for plan in reading.book.plans] == ["alpha", "beta"]
    assert [Path(problem.file).name for problem in reading.errors] == ["c.yaml", "d.yaml"]
    assert "the tenant `alpha` stands in a.yml already" in str(reading.errors[1])
    assert [Path(problem.file).name for problem in reading.warnings] == ["d.yaml"]
    beta = reading.book.plan("beta")
    assert beta is not None
    assert beta.file == tmp_path / "b.yaml"
    assert reading.book.plan("gamma") is None


def test_a_folder_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DialplanError, match="No such file"):
        book.read(tmp_path / "none")
