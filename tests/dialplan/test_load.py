"""Every mistake in a file is found, with its line, its key as written, and a reason; advice does not stop it."""

from __future__ import annotations

import string
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sipserver import yaml_file
from sipserver.dialplan import load
from sipserver.dialplan.steps import STEPS, Collect, Say
from sipserver.errors import DialplanError
from tests.fakes.dialplans import plan, report, written

AGENT = "agents: {ada: {prompt: You are Ada.}}"


def errors(flows: str, **more: str) -> list[str]:
    return [str(problem) for problem in report(written(flows, **more)).errors]


def warnings(flows: str, **more: str) -> list[str]:
    found = report(written(flows, **more))
    assert found.errors == ()
    return [str(problem) for problem in found.warnings]


def test_a_file_becomes_a_plan() -> None:
    found = plan(
        """
        main:
          - answer
          - say: 42
          - collect: {digits: 1, on: {1: help, none: next, other: end}}
          - hangup
        help:
          - wait: 1
        """,
        routes="- match: {to: +49*}\n  flow: main",
        head="timezone: Europe/Vienna\nvariables: {vip: true}",
    )
    assert [step.word for step in found.flows["main"].steps] == ["answer", "say", "collect", "hangup"]
    assert found.flows["main"].lines == (6, 7, 8, 9)
    say, collect = found.flows["main"].steps[1:3]
    assert isinstance(say, Say)
    assert say.text == "42"
    assert isinstance(collect, Collect)
    assert collect.target("1") == "help"
    assert found.variables == {"vip": "true"}
    assert found.zone.key == "Europe/Vienna"
    assert found.routes[0].match.to == ("+49*",)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("answr", "acme.yaml:5: flows.main[0]: unknown step `answr`, did you mean `answer`?; known are answer, early"),
        ("dial: x", "acme.yaml:5: flows.main[0].dial: unknown step `dial`; known are"),
        ("say", "acme.yaml:5: flows.main[0].text: this key is required"),
        ("say:", "acme.yaml:5: flows.main[0].say.text: this key is required"),
        ("say: [a]", "acme.yaml:5: flows.main[0].say: should be text"),
        ("say: {text: a, txt: b}", "acme.yaml:5: flows.main[0].say.txt: unknown key"),
        ("say: 'Hi {name!r}'", "acme.yaml:5: flows.main[0].say: `{name!r}` is not a variable like `{name}`"),
        ("{say: a, voice: b}", "acme.yaml:5: flows.main[0]: a step has one key, here are `say` and `voice`: options"),
        ("[say]", "acme.yaml:5: flows.main[0]: a step is a word such as `answer` or a mapping"),
        ("{}", "acme.yaml:5: flows.main[0]: a step is a word"),
        ("collect: 1", "acme.yaml:5: flows.main[0].collect: `collect` takes options as `key: value`"),
        (
            "collect: {on: {none: end}}",
            "acme.yaml:5: flows.main[0].collect: `collect` must say where to go on for `other`",
        ),
        ("agent: ada", "acme.yaml:5: flows.main[0].agent: `agent` must say where to go on for `failed`"),
        ("agent: {use: bob, on: {failed: end}}", "acme.yaml:5: flows.main[0].agent.use: unknown agent `bob`"),
        (
            "agent: {use: ada, on: {failed: end, busy: end}}",
            "acme.yaml:5: flows.main[0].agent: unknown outcome `busy`;",
        ),
        ("say: {text: a, on: {failed: nowhere}}", "acme.yaml:5: flows.main[0].say.on.failed: unknown flow `nowhere`"),
        (
            "when: {var: x, is: 1, then: mian}",
            "acme.yaml:5: flows.main[0].when.then: unknown flow `mian`, did you mean",
        ),
        ("when: {var: x, is: 1, then: end, else: no}", "acme.yaml:5: flows.main[0].when.else: unknown flow `no`"),
        ("when: {var: x, then: end}", "acme.yaml:5: flows.main[0].when: `when` needs exactly one of"),
        ("when: {var: x, in: 3, then: end}", "acme.yaml:5: flows.main[0].when.in: should be a list"),
        ("goto: nowhere", "acme.yaml:5: flows.main[0].goto: unknown flow `nowhere`"),
        ("goto: {flow: nowhere}", "acme.yaml:5: flows.main[0].goto.flow: unknown flow `nowhere`"),
        ("play: none.wav", "acme.yaml:5: flows.main[0].play: no such file: none.wav"),
        ("play: {file: .}", "acme.yaml:5: flows.main[0].play.file: no such file: ."),
        ('play: "a\\0b"', "acme.yaml:5: flows.main[0].play: no such file"),
        (
            "collect: {play: x.wav, on: {none: end, other: end}}",
            "acme.yaml:5: flows.main[0].collect.play: no such file",
        ),
        ("set: {from: me}", "acme.yaml:5: flows.main[0].set.from: `from` is told by the call and cannot be set"),
        ("collect: {into: to, on: {none: end, other: end}}", "acme.yaml:5: flows.main[0].collect.into: `to` is told"),
        ("hangup: 200", "acme.yaml:5: flows.main[0].hangup: should be greater than or equal to 400"),
        (
            "hangup: {code: 486, on: {done: end}}",
            "acme.yaml:5: flows.main[0].hangup: unknown outcome `done`; `hangup` has no",
        ),
        ("record: begin", "acme.yaml:5: flows.main[0].record: should be 'start', 'stop', 'pause' or 'resume'"),
        ("wait: 0", "acme.yaml:5: flows.main[0].wait: should be greater than 0"),
        ("wait: .nan", "acme.yaml:5: flows.main[0].wait: should be"),
    ],
)
def test_a_wrong_step_is_named_with_its_line(step: str, message: str) -> None:
    found = errors(f"main:\n  - {step}", head=AGENT)
    assert len(found) == 1
    assert found[0].startswith(message)


SALES = "targets: ['+49*', '!+49900*', '*@pbx']\nqueues: {sales: {agents: ['+4930']}}"


@pytest.mark.parametrize(
    ("step", "head", "message"),
    [
        (
            "agent: {use: ada, transfer: {to: '+4989'}, on: {failed: end}}",
            f"targets: ['+4930*']\n{AGENT}",
            "6: flows.main[0].agent.transfer.to: `targets` does not allow `+4989`; it allows +4930*",
        ),
        (
            "agent: {use: ada, transfer: {to: '+4989', music: no.wav}, on: {failed: end}}",
            AGENT,
            "5: flows.main[0].agent.transfer.music: no such file: no.wav",
        ),
        (
            "agent: {use: ada, transfer: {to: 1, mode: blind, keep: agent}, on: {failed: end}}",
            AGENT,
            "5: flows.main[0].agent.transfer: `keep: agent` needs `mode: attended` or `mode: warm`",
        ),
        (
            "transfer: {to: 1, accept_by: voice, on: {failed: end}}",
            "",
            "4: flows.main[0].transfer: `accept_by` needs `mode: warm`",
        ),
        (
            "transfer: {to: 1, mode: warm, announce: a, accept_by: voice, accept: 2, on: {failed: end}}",
            "",
            "4: flows.main[0].transfer: `accept` is a key, and with `accept_by: voice` none counts",
        ),
        (
            "transfer: {to: 1, keep: agent, on: {failed: end}}",
            "",
            "4: flows.main[0].transfer.keep: ",
        ),
        (
            "bridge: {to: '{x}', on: {failed: end}}",
            "",
            "4: flows.main[0].bridge.to: `{x}` has variables: say under `targets` where calls may go, as in [+49*]",
        ),
        (
            "transfer: {to: +4989, on: {failed: end}}",
            "targets: 1*",
            "5: flows.main[0].transfer.to: `targets` does not allow `+4989`; it allows 1*",
        ),
        ("transfer: {to: +499001, on: {failed: end}}", SALES, "6: flows.main[0].transfer.to: `targets` does not allow"),
        ("bridge: {to: a b, on: {failed: end}}", "", "4: flows.main[0].bridge.to: `a b` is no target: write a number"),
        ("bridge: +4930", "", "4: flows.main[0].bridge: `bridge` must say where to go on for `failed`"),
        ("bridge: {to: 1, music: a.ogg, on: {failed: end}}", "", "4: flows.main[0].bridge.music: no such file: a.ogg"),
        (
            "queue: {name: sale, on: {failed: end}}",
            SALES,
            "6: flows.main[0].queue.name: unknown queue `sale`, did you mean `sales`?",
        ),
        ("serve: sale", SALES, "6: flows.main[0].serve: unknown queue `sale`, did you mean `sales`?"),
        ("answer", "queues: {sales: {agents: ['{x}']}}", "2: queues.sales.agents[0]: `{x}` is no target"),
        ("answer", "targets: 1*\nqueues: {sales: {agents: [200]}}", "3: queues.sales.agents[0]: `targets` does not"),
        ("answer", "queues: {sales: {agent: [200]}}", "2: queues.sales.agent: unknown key, did you mean `agents`?"),
        ("answer", "targets: ['!1*']", "2: targets: says only where calls may not go"),
        ("answer", "targets: []", "2: targets: should not be empty"),
        ("answer", "calendars: {a: {dates: [12-24, 12-32]}}", "2: calendars.a.dates[1]: `12-32`: there is no such day"),
        ("answer", "calendars: {a: {country: QQ}}", "2: calendars.a: no public holidays are known"),
    ],
)
def test_where_calls_may_go_is_checked(step: str, head: str, message: str) -> None:
    found = errors(f"main:\n  - {step}", head=head)
    assert len(found) == 1
    assert found[0].startswith(f"acme.yaml:{message}")


def test_targets_with_variables_are_left_to_the_call() -> None:
    step = "bridge: {to: 'sip:{to}@pbx', on: {failed: end}}"
    found = plan(f"main: [{step}]", head=SALES)
    assert list(found.callees()) == [
        (("flows", "main", 0, "bridge", "to"), "sip:{to}@pbx"),
        (("queues", "sales", "agents", 0), "+4930"),
    ]
    assert found.targets == ("+49*", "!+49900*", "*@pbx")


def test_calendars_are_found_by_name() -> None:
    head = "calendars: {holidays: {dates: 12-24}}"
    routes = "- {match: {calendar: '!holidays'}, flow: main}\n- {match: {calendar: [holidays, hollidays]}, flow: main}"
    assert errors("main: [answer]", head=head, routes=routes) == [
        "acme.yaml:7: routes[1].match.calendar: unknown calendar `hollidays`, did you mean `holidays`?"
    ]


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("", ["acme.yaml:1: is empty; a dialplan has `tenant`, `flows` and `routes`"]),
        ("- a", ["acme.yaml:1: is empty; a dialplan has `tenant`, `flows` and `routes`"]),
        (
            "tenants: acme",
            [
                "acme.yaml:1: tenant: this key is required",
                "acme.yaml:1: flows: this key is required",
                "acme.yaml:1: routes: this key is required",
                "acme.yaml:1: tenants: unknown key",
            ],
        ),
        (
            "tenant: acme\nflows:\n  main: []\nroutes: []",
            ["acme.yaml:3: flows.main: should not be empty", "acme.yaml:4: routes: should not be empty"],
        ),
        (
            "tenant: A b\nflows:\n  main: answer\nroutes:\n- flow: main",
            ["acme.yaml:1: tenant: should match pattern", "acme.yaml:3: flows.main: should be a list"],
        ),
        (
            "tenant: acme\ntimezone: Mars\nflows:\n  end: [answer]\nroutes:\n"
            "- {match: {to: 1, hours: noon}, flow: main}",
            [
                "acme.yaml:2: timezone: `Mars` is no time zone; write a name such as Europe/Berlin",
                "acme.yaml:4: flows.end: a flow cannot be called `end`",
                "acme.yaml:6: routes[0].match.hours: `noon` is no day",
                "acme.yaml:6: routes[0].flow: unknown flow `main`",
            ],
        ),
        (
            "tenant: acme\nvariables: {to: a}\nflows: {main: [answer]}\nroutes: [{flow: main, mach: {}}]",
            ["acme.yaml:2: variables.to: `to` is told", "acme.yaml:4: routes[0].mach: unknown key"],
        ),
        (
            "tenant: acme\nagents:\n  a:\n    prompt: x\n    turn:\n      end_silence: 3\nflows: {main: [answer]}\n"
            "routes: [flow: main]",
            ["acme.yaml:6: agents.a.turn.end_silence: unknown key"],
        ),
        ("tenant: acme\nflows:\n  main: [answer\nroutes: 1", ["acme.yaml:4: expected ',' or ']'"]),
    ],
)
def test_all_mistakes_of_a_file_come_at_once(tmp_path: Path, text: str, messages: list[str]) -> None:
    file = tmp_path / "acme.yaml"
    file.write_text(text)
    found = [str(problem).removeprefix(f"{tmp_path}/") for problem in load.check(file).errors]
    assert len(found) == len(messages)
    for problem, message in zip(found, sorted(messages, key=lambda line: int(line.split(":")[1])), strict=True):
        assert any(problem.startswith(other) for other in messages), problem
        assert problem.split(":")[1] == message.split(":")[1]


def test_loading_raises_the_first_mistake(tmp_path: Path) -> None:
    file = tmp_path / "acme.yaml"
    file.write_text(written("main: [sy, sai]"))
    with pytest.raises(DialplanError, match="unknown step `sy`") as caught:
        load.load(file)
    assert (caught.value.file, caught.value.line, caught.value.key) == (str(file), 3, "flows.main[0]")
    with pytest.raises(DialplanError, match="No such file"):
        load.load(tmp_path / "none.yaml")


def test_a_sound_beside_the_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds" / "a.wav").touch()
    file = tmp_path / "acme.yaml"
    file.write_text(written("main:\n  - play: sounds/a.wav"))
    found = load.load(file)
    assert found.sound("sounds/a.wav") == tmp_path / "sounds" / "a.wav"


def test_anchors_give_steps_their_defaults() -> None:
    found = plan(
        """
        main:
          - say: &voice {text: a, voice: x}
          - say: {<<: *voice, text: b}
        """
    )
    assert found.flows["main"].steps[1] == Say(text="b", voice="x")


@pytest.mark.parametrize(
    "flows",
    [
        "main:\n  - goto: main",
        "main:\n  - answer\n  - goto: b\nb:\n  - set: {a: 1}\n  - when: {var: a, is: 1, then: main}",
        "main:\n  - when: {var: a, is: 1, then: main, else: end}",
        "main:\n  - record: {on: {done: main}}",
    ],
)
def test_a_loop_that_would_spin_is_refused(flows: str) -> None:
    found = errors(flows)
    assert len([problem for problem in found if "an endless loop without a step that takes time: main" in problem]) == 1


@pytest.mark.parametrize(
    ("flows", "where"),
    [
        ("main:\n  - wait: 1\n  - goto: main", "acme.yaml:4: flows.main[0]: from here the call can never end (`main`)"),
        (
            "main:\n  - wait: 1\n  - goto: b\nb:\n  - wait: 1\n  - goto: main",
            "acme.yaml:4: flows.main[0]: from here the call can never end (`main`, `b`)",
        ),
        (
            "main:\n  - collect: {on: {none: end, other: b}}\nb:\n  - wait: 1\n  - goto: b",
            "acme.yaml:6: flows.b[0]: from here the call can never end (`b`)",
        ),
        (
            "main:\n  - wait: 1\n  - say: {text: a, on: {done: main, failed: main}}\n  - hangup",
            "acme.yaml:4: flows.main[0]: from here the call can never end (`main`)",
        ),
    ],
)
def test_a_loop_without_a_way_out_is_refused(flows: str, where: str) -> None:
    found = errors(flows)
    assert len(found) == 1
    assert found[0].startswith(where)


@pytest.mark.parametrize(
    "flows",
    [
        "main:\n  - collect: {on: {none: main, other: next}}",
        "main:\n  - wait: 1\n  - when: {var: a, is: 1, then: end, else: main}",
        "main:\n  - collect: {on: {none: b, other: end}}\nb:\n  - say: Again.\n  - goto: main",
    ],
)
def test_loops_that_wait_and_can_end_are_fine(flows: str) -> None:
    assert errors(flows) == []


@pytest.mark.parametrize(
    ("flows", "more", "advice"),
    [
        ("main:\n  - hangup\n  - answer\n  - answer", {}, ["5: flows.main[1]: this step is never reached"]),
        ("main:\n  - answer\nb:\n  - answer", {}, ["5: flows.b: no route and no step leads to this flow"]),
        ("main:\n  - answer", {"head": AGENT}, ["2: agents.ada: no step uses this agent"]),
        (
            "main:\n  - say: Hi {nme}",
            {"head": "variables: {name: a}"},
            ["nothing sets the variable `nme`, did you mean"],
        ),
        ("main:\n  - say: Hi {name} {from} {header.x-a}", {"head": "variables: {name: a}"}, []),
        ("main:\n  - when: {var: a, set: true, then: end}", {}, ["nothing sets the variable `a`"]),
        ("main:\n  - early\n  - say: a\n  - echo", {}, ["6: flows.main[2]: `echo` before `answer`: most networks"]),
        ("main:\n  - early\n  - say: a\n  - answer\n  - echo", {}, []),
        ("main:\n  - answer\n  - hangup: 486", {}, ["5: flows.main[1]: the code has no effect"]),
        ("main:\n  - hangup: 486", {}, []),
        ("main:\n  - say: a\n  - hangup", {}, []),
        ("main: [answer]", {"routes": "- flow: main\n- {match: {to: a}, flow: main}"}, ["route 0 takes all calls"]),
        ("main: [answer]", {"routes": "- {match: {hours: weekdays}, flow: main}"}, ["`hours` are in UTC"]),
        (
            "main: [answer]",
            {"routes": "- {match: {calendar: x}, flow: main}", "head": "calendars: {x: {dates: 12-24}}"},
            ["`calendar` is in UTC"],
        ),
        (
            "main: [answer]",
            {"head": "calendars: {x: {dates: 12-24}}"},
            ["2: calendars.x: no route asks for this calendar"],
        ),
        (
            "main: [answer]\nb: [answer]",
            {"routes": "- {match: {percent: 5}, flow: main}\n- {match: {percent: 5}, flow: b}"},
            [],
        ),
        (
            "main: [answer]\nb: [answer]",
            {"routes": "- {match: {percent: 5}, flow: main, name: x}\n- {match: {percent: 5}, flow: b, name: x}"},
            ["route 0 takes all calls that this one matches"],
        ),
        (
            "main: [answer]",
            {"head": "queues: {sales: {}}"},
            ["2: queues.sales: no step `queue` leads callers here", "2: queues.sales: nobody serves this queue"],
        ),
    ],
)
def test_advice_is_a_warning(flows: str, more: dict[str, str], advice: list[str]) -> None:
    found = warnings(flows, **more)
    assert len(found) == len(advice)
    for problem, words in zip(found, advice, strict=True):
        assert words in problem


def test_prompts_may_use_variables() -> None:
    head = "agents: {ada: {prompt: 'The caller is {from}, {nobody}.', greeting: 'Hello {header.X-Name}.'}}"
    flows = "main:\n  - agent: {use: ada, on: {failed: end}}"
    found = report(written(flows, head=head))
    assert [problem.key for problem in found.warnings] == ["agents.ada.prompt"]
    assert found.plan is not None
    spec, unknown = found.plan.agents["ada"].rendered({"from": "Bob"})
    assert (spec.prompt, spec.greeting) == ("The caller is Bob, .", "Hello .")
    assert unknown == ("nobody", "header.X-Name")


_WORDS = st.sampled_from([*STEPS, "main", "b", "next", "end", "on", "none", "other", "done", "failed", "1", "x"])
_VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 700) | st.floats() | _WORDS | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS | st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)
_OPTIONS = st.sampled_from(
    [
        "text",
        "on",
        "use",
        "file",
        "var",
        "is",
        "then",
        "else",
        "digits",
        "into",
        "say",
        "play",
        "flow",
        "code",
        "seconds",
        "to",
        "name",
        "queue",
        "box",
        "music",
    ]
)
_STEP = _WORDS | st.dictionaries(st.sampled_from(list(STEPS)), _VALUES | st.dictionaries(_OPTIONS, _VALUES), max_size=2)
_FILE = st.fixed_dictionaries(
    {
        "tenant": st.just("acme") | _VALUES,
        "flows": st.dictionaries(
            st.sampled_from(["main", "b", "end"]), st.lists(_STEP, max_size=4) | _VALUES, max_size=3
        ),
        "routes": st.lists(st.fixed_dictionaries({"flow": _WORDS}, optional={"match": _VALUES}), max_size=2) | _VALUES,
    },
    optional={
        "targets": _VALUES,
        "queues": _VALUES | st.dictionaries(_WORDS, st.fixed_dictionaries({}, optional={"agents": _VALUES})),
        "calendars": _VALUES | st.dictionaries(_WORDS, st.fixed_dictionaries({}, optional={"dates": _VALUES})),
        "agents": _VALUES,
        "variables": _VALUES,
        "timezone": _VALUES,
    },
)


def test_advice_about_steps_with_others() -> None:
    head = "queues: {sales: {agents: [201]}, support: {}}"
    flows = """
        main:
          - bridge: {to: 1, on: {failed: next}}
          - collect: {on: {none: next, other: next}}
          - voicemail: "{nobody}"
          - queue: {name: sales, position_say: "{position}", on: {failed: end, timeout: agents}}
          - queue: {name: support, on: {failed: end}}
        agents:
          - serve: support
    """
    found = warnings(flows, head=head)
    assert [problem.removeprefix("acme.yaml:") for problem in found] == [
        "6: flows.main[1]: `collect` before `answer`: most networks do not carry the caller's sound and digits yet",
        "7: flows.main[2]: nothing sets the variable `nobody`",
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_FILE)
def test_no_document_raises_anything_but_a_dialplan_error(value: Any) -> None:
    text = yaml.safe_dump(value, allow_unicode=True)
    try:
        found = report(text)
    except DialplanError:
        return  # text that is no YAML for us, such as NEL inside a plain scalar
    assert (found.plan is None) == bool(found.errors)
    assert all(isinstance(problem, DialplanError) and problem.line for problem in found.errors + found.warnings)


@given(st.text(alphabet=string.printable, max_size=200))
def test_no_text_raises_anything_but_a_dialplan_error(text: str) -> None:
    try:
        document = yaml_file.parse_text(dedent(text), Path("acme.yaml"), DialplanError)
    except DialplanError:
        return
    assert load.check_document(document).errors
