"""What each step accepts in YAML and where it sends the call."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from sipserver.dialplan.steps import (
    STEPS,
    Agent,
    Amd,
    Bridge,
    Collect,
    Conference,
    Goto,
    Hangup,
    Queue,
    Say,
    Serve,
    SetStep,
    Step,
    Stream,
    Transfer,
    Voicemail,
    Wait,
    When,
)


def when(**options: Any) -> When:
    return When.model_validate({"then": "yes", "else": "no", **options})


def test_a_scalar_is_the_short_form() -> None:
    assert Say.model_validate("Hello.").text == "Hello."
    assert Wait.model_validate(2).seconds == 2
    assert Hangup.model_validate(486).code == 486
    assert Hangup.model_validate(None).code == 603
    assert Goto.model_validate("main").flow == "main"


def test_a_step_without_a_short_form_says_so() -> None:
    with pytest.raises(ValidationError, match="`collect` takes options as `key: value`"):
        Collect.model_validate("1")


@pytest.mark.parametrize(
    ("options", "value", "target"),
    [
        ({"var": "x", "is": "1"}, "1", "yes"),
        ({"var": "x", "is": "1"}, "2", "no"),
        ({"var": "x", "is": ""}, None, "yes"),
        ({"var": "x", "in": ["1", "2"]}, "2", "yes"),
        ({"var": "x", "in": ["1", "2"]}, "3", "no"),
        ({"var": "x", "like": "+49*"}, "+4930", "yes"),
        ({"var": "x", "like": "+49*"}, "+4330", "no"),
        ({"var": "x", "set": True}, "", "no"),
        ({"var": "x", "set": True}, "a", "yes"),
        ({"var": "x", "set": False}, None, "yes"),
    ],
)
def test_when_compares_a_variable(options: dict[str, Any], value: str | None, target: str) -> None:
    assert when(**options).branch({} if value is None else {"x": value}) == target


def test_when_finds_headers_in_any_case() -> None:
    assert when(var="header.X-Vip", **{"is": "1"}).branch({"header.x-vip": "1"}) == "yes"


@pytest.mark.parametrize("options", [{"var": "x"}, {"var": "x", "is": "1", "like": "2"}])
def test_when_needs_exactly_one_test(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="exactly one"):
        when(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"is": "1"}, "x is 1"),
        ({"in": ["1", "2"]}, "x in 1, 2"),
        ({"like": "a*"}, "x like a*"),
        ({"set": True}, "x is set"),
        ({"set": False}, "x is not set"),
    ],
)
def test_when_tells_its_test(options: dict[str, Any], words: str) -> None:
    assert when(var="x", **options).branches()[0].outcome == words


def collect(**options: Any) -> Collect:
    on = {"none": "end", "other": "end", **options.pop("on", {})}
    return Collect.model_validate({"on": on, **options})


def test_collect_branches_on_the_digits() -> None:
    step = collect(digits=2, min_digits=2, on={"42": "answer"})
    assert step.outcome("42") == "42"
    assert step.target("42") == "answer"
    assert step.outcome("43") == "other"
    assert step.outcome("4") == "other"
    assert step.outcome("") == "none"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"on": {"12": "a"}}, "`12` can never be collected with digits: 1"),
        ({"on": {"1": "a"}, "digits": 4, "min_digits": 2}, "`1` can never be collected with min_digits: 2"),
        ({"on": {"#": "a"}}, "`#` can never be collected: `#` is the terminator"),
        ({"on": {"done": "a"}}, "unknown outcome `done`; `collect` has the outcomes none, other and digits"),
        ({"say": "a", "play": "b"}, "not both"),
        ({"min_digits": 3, "digits": 2}, "min_digits: 3 is more than digits: 2"),
        ({"terminator": "x"}, "pattern"),
        ({"into": "a-b"}, "pattern"),
    ],
)
def test_collect_refuses_what_cannot_be(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError) as caught:
        collect(**options)
    assert reason in str(caught.value)


def test_without_a_terminator_every_key_is_a_digit() -> None:
    assert collect(terminator="", on={"#": "a"}).outcome("#") == "#"


def test_required_branches_are_named() -> None:
    with pytest.raises(ValidationError, match=r"`none` and `other`: on: \{none: ..., other: ...\}"):
        Collect.model_validate({})


def test_unnamed_outcomes_go_on_with_the_next_step() -> None:
    step = Say.model_validate({"text": "a", "on": {"failed": "sorry"}})
    assert step.target("done") == "next"
    assert step.target("failed") == "sorry"
    assert [(branch.outcome, branch.target) for branch in step.branches()] == [("failed", "sorry"), ("done", "next")]


def test_set_takes_a_plain_mapping() -> None:
    assert SetStep.model_validate({"values": 1, "vip": True, "to_say": "{from}"}).values == {
        "values": "1",
        "vip": "true",
        "to_say": "{from}",
    }
    with pytest.raises(ValidationError, match="pattern"):
        SetStep.model_validate({"a b": "1"})


def test_goto_next_goes_nowhere() -> None:
    with pytest.raises(ValidationError, match="flow or `end`"):
        Goto.model_validate("next")


def test_texts_with_variables_are_known() -> None:
    assert Say.model_validate("Hi {name}").templates() == ("Hi {name}",)
    assert collect(say="a").templates() == ("a",)
    assert collect().templates() == ()
    assert SetStep.model_validate({"a": "{b}"}).templates() == ("{b}",)
    with pytest.raises(ValidationError, match="is not a variable"):
        Say.model_validate("Hi {name!r}")


def bridge(**options: Any) -> Bridge:
    return Bridge.model_validate({"to": "100", "on": {"failed": "sorry"}, **options})


def transfer(**options: Any) -> Transfer:
    return Transfer.model_validate({"to": "100", "on": {"failed": "sorry"}, **options})


def test_a_call_ends_after_a_connection_unless_the_file_says_otherwise() -> None:
    for step in (bridge(), transfer()):
        assert [(branch.outcome, branch.target) for branch in step.branches()] == [
            ("failed", "sorry"),
            ("answered", "end"),
            ("busy", "next"),
            ("no_answer", "next"),
            ("declined", "next"),
        ]
        assert step.target("answered") == "end"
    assert bridge(on={"failed": "sorry", "answered": "survey"}).target("answered") == "survey"


@pytest.mark.parametrize("step", [Bridge, Transfer])
def test_who_calls_somebody_says_what_follows_a_failure(step: type[Step]) -> None:
    with pytest.raises(ValidationError, match=r"must say where to go on for `failed`: on: \{failed: ...\}"):
        step.model_validate("+4930123")


def test_all_that_is_said_about_the_other_side_may_hold_variables() -> None:
    step = bridge(**{"to": "{a}", "trunk": "{b}", "from": "{c}", "display": "{d}", "headers": {"X-E": "{e}"}})
    assert step.from_ == "{c}"
    assert step.templates() == ("{a}", "{b}", "{c}", "{d}", "{e}")
    assert transfer(mode="warm", announce="{f} calls").templates() == ("100", "{f} calls")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"mode": "warm"}, "`mode: warm` needs `announce`"),
        ({"announce": "A call."}, "`announce` needs `mode: warm`; with `mode: attended` nobody is asked"),
        ({"mode": "blind", "accept": "2"}, "`accept` needs `mode: warm`; with `mode: blind` nobody is asked"),
        ({"mode": "warm", "announce": "a", "accept": "12"}, "pattern"),
        ({"on": {"failed": "end", "caller_gone": "end"}}, "unknown outcome `caller_gone`"),
        ({"headers": {"X A": "1"}}, "pattern"),
        ({"headers": {"X-A": "1\r\nVia: x"}}, "pattern"),
        ({"to": ""}, "at least 1"),
        ({"to": "{a"}, "is not a variable"),
        ({"ring_s": 0}, "greater than 0"),
    ],
)
def test_a_transfer_refuses_what_cannot_be(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError) as caught:
        transfer(**options)
    assert reason in str(caught.value)


def test_what_is_said_is_known_with_its_voice() -> None:
    step = transfer(mode="warm", announce="A call.", accept="*", voice="x")
    assert step.spoken() == ("A call.",)
    assert step.voice == "x"
    assert transfer().spoken() == ()
    assert Voicemail.model_validate({"box": "sales", "greeting": "Hi."}).spoken() == ("Hi.",)
    assert Voicemail.model_validate("sales").spoken() == ()


def test_who_answered_need_not_be_branched_on() -> None:
    step = Amd.model_validate(None)
    assert {branch.target for branch in step.branches()} == {"next"}
    assert Amd.model_validate(3).wait_s == 3


def test_a_queue_says_positions_unless_it_is_told_not_to() -> None:
    on = {"failed": "end"}
    assert Queue.model_validate({"name": "a", "on": on}).spoken() == ("You are number {position} in the queue.",)
    assert Queue.model_validate({"name": "a", "on": on, "position_say_every_s": 0}).spoken() == ()
    assert Queue.model_validate({"name": "a", "on": on}).sets() == ("position",)


@pytest.mark.parametrize(
    ("step", "options", "reason"),
    [
        (Queue, {"name": "a", "on": {"failed": "end", "abandoned": "end"}}, "`abandoned` needs `exit`"),
        (Queue, {"name": "a", "on": {"failed": "end"}, "position_say_every_s": 1}, "at least 5"),
        (Conference, {"room": "a/b", "on": {"failed": "end"}}, "`a/b` is no name"),
        (Conference, {"room": "a", "pin": "12a", "on": {"failed": "end"}}, "pattern"),
        (Voicemail, {"box": ".."}, "`..` is no name"),
        (Serve, {"queue": "a", "exit": "12"}, "pattern"),
    ],
)
def test_gatherings_refuse_what_cannot_be(step: type[Step], options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError) as caught:
        step.model_validate(options)
    assert reason in str(caught.value)


def test_rooms_boxes_and_pins_may_hold_variables() -> None:
    step = Conference.model_validate({"room": "team-{header.x-room}", "pin": "{pin}", "on": {"failed": "end"}})
    assert step.templates() == ("team-{header.x-room}", "{pin}")
    assert Voicemail.model_validate("{to}").templates() == ("{to}",)


def test_the_table_has_every_step_by_its_word() -> None:
    assert all(step.word == word for word, step in STEPS.items())
    assert all(step.required <= set(step.outcomes) for step in STEPS.values())


def test_an_agent_may_hand_over_and_its_own_branches_say_where_to_go_on() -> None:
    plain = Agent.model_validate({"use": "a", "on": {"failed": "end"}})
    assert "answered" not in [branch.outcome for branch in plain.branches()]
    step = Agent.model_validate({"use": "a", "transfer": {"to": "{from}"}, "on": {"failed": "end", "transfer": "b"}})
    assert {branch.outcome: branch.target for branch in step.branches()} == {
        "failed": "end",
        "transfer": "b",
        "answered": "end",
        "done": "next",
        "silence": "next",
        "max_duration": "next",
    }
    assert step.templates() == ("{from}",)


def test_who_answers_is_no_outcome_of_an_agent_that_calls_nobody() -> None:
    with pytest.raises(ValidationError, match="`answered` needs the option `transfer`"):
        Agent.model_validate({"use": "a", "on": {"failed": "end", "answered": "b"}})


def test_the_transfer_of_an_agent_has_no_branches() -> None:
    transfer = {"to": "1", "on": {"failed": "end"}}
    with pytest.raises(ValidationError, match="it has no branches of its own"):
        Agent.model_validate({"use": "a", "transfer": transfer, "on": {"failed": "end"}})


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"url": "https://a"}, "ws://"),
        ({"url": "wss://{host}/a"}, "no variable"),
        ({"url": "wss://a.{host}/a"}, "no variable"),
        ({"url": "wss://"}, "ws://"),
        ({"tracks": "both"}, "both: false"),
        ({"tracks": "both", "both": False, "protocol": "pcm"}, "protocol: twilio"),
        ({"rate_hz": 16_000}, "8000 Hz"),
        ({"sign_env": "A", "protocol": "pcm"}, "sign_env"),
        ({"silent_s": 3, "both": False}, "silent_s"),
        ({"max_s": 3, "both": False}, "max_s"),
        ({"headers": {"Host": "a"}}, "handshake"),
        ({"headers": {"Sec-WebSocket-Key": "a"}}, "handshake"),
        ({"headers": {"a b": "c"}}, "pattern"),
        ({"headers_env": {"Authorization": "Bearer a"}}, "pattern"),
        ({"on": {}}, "failed"),
    ],
)
def test_what_a_stream_cannot_be(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Stream.model_validate({"url": "wss://a.example/b", "on": {"failed": "end"}, **options})


def test_a_stream_names_its_variables() -> None:
    step = Stream.model_validate(
        {"url": "wss://a/{to}", "parameters": {"a": "{from}"}, "headers": {"X-A": "{tenant}"}, "on": {"failed": "end"}}
    )
    assert step.templates() == ("wss://a/{to}", "{from}", "{tenant}")
    assert (step.target("failed"), step.target("done")) == ("end", "next")
