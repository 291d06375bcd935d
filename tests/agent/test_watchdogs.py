"""The two watchdogs by themselves."""

from __future__ import annotations

from sipserver.agent.watchdogs import AgentSilent, CallerUnheard

S = 1_000_000_000


def test_an_agent_that_plays_is_left_alone() -> None:
    watchdog = AgentSilent(4000)
    watchdog.begin(0)
    assert [watchdog.look(n * S, n * 1000, excused=False) for n in range(20)] == [None] * 20


def test_an_agent_without_sound_is_retried_and_then_failed() -> None:
    watchdog = AgentSilent(4000)
    watchdog.begin(0)
    actions = [watchdog.look(n * S, 0, excused=False) for n in range(1, 10)]
    assert actions == [None, None, None, "retry", None, None, None, "failed", None]


def test_while_it_is_excused_the_time_does_not_count() -> None:
    watchdog = AgentSilent(4000)
    watchdog.begin(0)
    assert [watchdog.look(n * S, 0, excused=True) for n in range(1, 20)] == [None] * 19
    assert watchdog.look(21 * S, 0, excused=False) is None


def test_a_new_turn_has_its_own_retry() -> None:
    watchdog = AgentSilent(4000)
    watchdog.begin(0)
    assert watchdog.look(4 * S, 0, excused=False) == "retry"
    watchdog.begin(5 * S)
    assert watchdog.look(9 * S, 0, excused=False) == "retry"


def test_clear_voices_without_words_are_counted_in_a_row() -> None:
    watchdog = CallerUnheard()
    assert watchdog.unheard(100) is None
    assert [watchdog.unheard(800) for _ in range(4)] == [None, "retry", None, "failed"]


def test_words_start_the_count_again() -> None:
    watchdog = CallerUnheard()
    watchdog.unheard(800)
    watchdog.heard()
    assert watchdog.unheard(800) is None
