"""What the model is told about the conversation so far."""

from __future__ import annotations

from sipserver.agent.history import History
from sipserver.agent.llm.contract import Message, ToolCall
from sipserver.dialplan.agents import Example


def shown(history: History, user: str = "", language: str = "") -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in history.prompt(user, language)]


def test_the_callers_last_words_are_asked_without_being_kept() -> None:
    history = History("System.")
    history.add_user("Hello")
    history.add(Message("assistant", "Hi."))
    assert shown(history, "And now?")[-1] == ("user", "And now?")
    assert shown(history) == [("system", "System."), ("user", "Hello"), ("assistant", "Hi.")]


def test_turns_without_an_answer_between_them_are_one() -> None:
    history = History("System.")
    history.add_user("I would like")
    assert history.unanswered == "I would like"
    assert shown(history, "a table") == [("system", "System."), ("user", "I would like a table")]
    history.add_user("a table")
    assert history.unanswered == "I would like a table"


def test_an_answer_of_which_nothing_was_heard_is_left_out() -> None:
    history = History("System.")
    history.add_user("Hello")
    history.add(Message("assistant", ""))
    assert history.unanswered == "Hello"


def test_tool_calls_stay_without_words() -> None:
    history = History("System.")
    call = ToolCall("1", "book", "{}")
    history.add(Message("assistant", "", (call,)), Message("tool", "{}", tool_call_id="1"))
    assert [message.role for message in history.messages] == ["assistant", "tool"]


def test_the_language_stands_behind_the_prompt() -> None:
    assert shown(History("System."), "Hallo", "de")[0][1] == "System.\nAnswer in German."
    assert shown(History("System."), "Hei", "fi")[0][1] == "System.\nAnswer in fi."


def test_the_oldest_are_dropped_up_to_a_message_of_the_caller() -> None:
    history = History("System.", [Example(caller="Open?", agent="Yes.")], max_messages=4)
    history.add_user("one")
    history.add(
        Message("assistant", "", (ToolCall("1", "book", "{}"),)),
        Message("tool", "{}", tool_call_id="1"),
        Message("assistant", "Done."),
    )
    history.add_user("two")
    examples = [("user", "Open?"), ("assistant", "Yes.")]
    assert shown(history) == [("system", "System."), *examples, ("user", "two")]


def test_long_texts_are_bounded_but_never_the_last_message() -> None:
    history = History("System.", max_characters=100)
    for _ in range(10):
        history.add_user("x" * 40)
        history.add(Message("assistant", "y" * 40))
    assert sum(len(message.content) for message in history.messages) <= 100
    history.add_user("z" * 500)
    assert history.messages[-1].content == "z" * 500
