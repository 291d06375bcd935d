"""The dry run: verdicts of the routes, and the flow as a tree."""

from __future__ import annotations

from datetime import UTC, datetime
from textwrap import dedent
from typing import Any

from sipserver.dialplan.book import Book
from sipserver.dialplan.explain import MAX_DEPTH, explain, flow_lines
from sipserver.dialplan.facts import CallFacts
from sipserver.dialplan.match import draw
from sipserver.dialplan.plan import Plan
from tests.fakes.dialplans import plan

NOW = datetime(2026, 11, 23, 22, 0, tzinfo=UTC)  # Monday
FLOWS = """
main:
  - set: {a: 1, b: x}
  - say: Welcome.
  - collect: {say: Press one., timeout_s: 2.5, on: {"1": help, none: main, other: next}}
  - when: {var: a, in: [1, 2], then: help}
  - goto: bye
help:
  - echo
bye:
  - hangup
"""
ROUTES = "- {match: {to: 2*}, flow: bye}\n- {match: {to: 1*, hours: mon-fri 20:00-24:00}, flow: main}\n- flow: help"


def lines(found: Plan, **facts: Any) -> str:
    explanation = explain(Book((found,)), CallFacts(**{"to_user": "1", **facts}), NOW)
    return "\n".join(explanation.lines())


def tree(found: Plan, flow: str = "main") -> str:
    return "\n".join(flow_lines(found, flow))


def test_every_route_until_the_one_that_takes_the_call() -> None:
    text = lines(plan(FLOWS, routes=ROUTES, head="timezone: Europe/London"), to_user="100", from_user="ada")
    assert text.startswith(
        dedent(
            """\
            call to 100 from ada (udp, unknown source) at mon 2026-11-23 22:00 GMT
            tenant acme (acme.yaml)
              route 0, line 15: to=2* -> bye
                no: to 2* does not match 100
              route 1, line 16: to=1* hours=mon-fri 20:00-24:00 -> main
                takes the call
                hours mon-fri 20:00-24:00 matches mon 22:00 GMT

            flow main
            """
        )
    )
    assert "route 2" not in text


def test_no_route_is_404() -> None:
    text = lines(plan("main: [answer]", routes="- {match: {to: 2*}, flow: main}"))
    assert text.endswith("no: to 2* does not match 1\nno route takes this call: 404 Not Found")


def test_the_flow_is_a_tree_in_which_every_flow_is_told_once() -> None:
    assert tree(plan(FLOWS)) == dedent(
        """\
        flow main
          set: a: 1, b: x
          say: Welcome.   (answers the call)
          collect: say: Press one., timeout_s: 2.5
            1 -> flow help
              echo
              end of the flow: the call ends
            none -> flow main (see above)
            other -> go on with the next step
          when: var: a, in: [1, 2]
            a in 1, 2 -> flow help (see above)
            else -> go on with the next step
          goto -> flow bye
            hangup"""
    )


def test_what_may_ring_or_be_answered_says_that_it_may_answer() -> None:
    assert "(answers the call)" not in tree(plan("main: [answer, echo]"))
    assert "(answers the call)" not in tree(plan("main: [early, {say: a}]"))


def test_a_long_chain_of_flows_is_not_told_in_one_tree() -> None:
    count = MAX_DEPTH * 40
    chain = "".join(f"f{n}:\n  - say: {{text: a, on: {{failed: f{n + 1}}}}}\n" for n in range(count))
    text = tree(plan(f"{chain}f{count}: [hangup]", routes="- flow: f0"), "f0")
    assert max(len(line) - len(line.lstrip()) for line in text.splitlines()) <= MAX_DEPTH * 8
    assert "(see below)" in text
    assert all(text.count(f"flow f{n}\n") == 1 for n in range(count))


def test_long_texts_are_cut_and_lines_joined() -> None:
    text = tree(plan("main:\n  - say: |\n      One\n      two " + "x" * 100))
    assert "say: One two xxx" in text
    assert "...   (answers the call)" in text


PBX = """
main:
  - bridge: {to: "{to}@pbx", headers: {X-A: "{from}"}, on: {busy: wait, failed: end}}
wait:
  - queue: {name: sales, language: de, on: {timeout: box, failed: box}}
box:
  - voicemail: {box: sales, on: {empty: end}}
  - transfer: {to: "201", mode: warm, announce: A call., on: {answered: wait, failed: end}}
"""
HEAD = """
timezone: Europe/Berlin
targets: ["*@pbx", "20?"]
queues: {sales: {agents: ["201"]}}
calendars: {party: {dates: 11-23}}
"""


def test_steps_that_bring_others_in_tell_where_every_outcome_leads() -> None:
    assert tree(plan(PBX, head=HEAD)) == dedent(
        """\
        flow main
          bridge: {to}@pbx, headers: {X-A: {from}}
            busy -> flow wait
              queue: sales, language: de   (answers the call)
                served by 201, whoever dials in (longest_idle, 20 s each, at most 50 wait)
                timeout -> flow box
                  voicemail: sales   (answers the call)
                    empty -> end the call
                  transfer: 201, mode: warm, announce: A call.
                    answered -> flow wait (see above)
                    failed -> end the call
                  end of the flow: the call ends
                failed -> flow box (see above)
                answered -> end the call
              end of the flow: the call ends
            failed -> end the call
            answered -> end the call
          end of the flow: the call ends"""
    )


def test_what_the_moment_says_to_a_route_is_told() -> None:
    match = "{hours: '!weekends', calendar: party, percent: 100, load: < 80}"
    routes = f"- {{match: {{calendar: '!party'}}, flow: box}}\n- {{match: {match}, flow: main}}"
    text = lines(plan(PBX, head=HEAD, routes=routes), from_user="ada", trunk="carrier", direction="outbound", load=66.6)
    assert text.startswith("call to 1 from ada (udp, unknown source, trunk carrier, outbound, load 66.6 %) at mon")
    assert "no: calendar !party does not match 2026-11-23 (11-23)\n" in text
    assert (
        "    takes the call\n"
        "    hours !weekends matches mon 23:00 CET\n"
        "    calendar party matches 2026-11-23 (11-23)\n"
        f"    percent 100 matches this caller's place {draw('acme/main', 'ada'):g}\n"
        "    load < 80 matches 66.6 %\n"
    ) in text
