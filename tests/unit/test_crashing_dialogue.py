"""The crash test's client follows SPEC.md: what it sends again, and what it acknowledges."""

from typing import Any

from scripts.crashing.dialogue import Dialogue
from scripts.crashing.workload import Ask


def welcome(*known: str, resumed: bool = True, epoch: str = "e1") -> dict[str, Any]:
    requests = [{"id": name} for name in known]
    shown: dict[str, Any] = {"session": "s", "epoch": epoch, "requests": requests}
    return {"type": "welcome", "resumed": resumed, "seq": 0, **shown}


def event(kind: str, request_id: str, seq: int, **more: Any) -> dict[str, Any]:
    return {"type": kind, "id": request_id, "seq": seq, "attempt": 1, **more}


def talking(*names: str) -> Dialogue:
    """Return a session whose requests `names` were sent."""
    dialogue = Dialogue()
    dialogue.receive(welcome(resumed=False))
    for name in names:
        dialogue.asks[name] = Ask(name, {"type": "request", "id": name}, sent=True)
    return dialogue


def unsent(dialogue: Dialogue) -> list[str]:
    return [ask.id for ask in dialogue.asks.values() if not ask.sent]


def test_what_the_manifest_does_not_list_is_sent_again() -> None:
    dialogue = talking("a", "b")
    dialogue.receive(welcome("a"))
    assert unsent(dialogue) == ["b"]


def test_what_has_ended_is_not_sent_again() -> None:
    dialogue = talking("a", "b")
    dialogue.receive(event("done", "a", 1))
    dialogue.receive(welcome())
    assert unsent(dialogue) == ["b"]


def test_what_was_refused_for_now_is_sent_again() -> None:
    dialogue = talking("a", "b")
    dialogue.receive({"type": "error", "id": "a", "code": "window_exceeded"})
    dialogue.receive({"type": "error", "id": "b", "code": "id_conflict"})
    assert unsent(dialogue) == ["a"]


def test_a_new_session_is_asked_for_everything() -> None:
    dialogue = talking("a", "b")
    dialogue.receive(event("done", "a", 1))
    dialogue.receive({"type": "accepted", "id": "b", "n": 2})
    dialogue.receive(welcome(resumed=False))
    assert unsent(dialogue) == ["b"]
    assert dialogue.hello()["seq"] == 0


def test_numbers_begin_anew_with_the_epoch() -> None:
    dialogue = talking("a")
    dialogue.receive(event("result", "a", 5))
    dialogue.receive(welcome("a"))
    assert dialogue.hello() == {"type": "hello", "session": "s", "epoch": "e1", "seq": 5}
    dialogue.receive(welcome("a", epoch="e2"))
    assert dialogue.hello() == {"type": "hello", "session": "s", "epoch": "e2", "seq": 0}


def test_an_ack_that_may_be_lost_is_said_again() -> None:
    dialogue = talking("a")
    dialogue.receive(event("done", "a", 3))
    assert dialogue.ack() == {"type": "ack", "seq": 3}
    assert dialogue.settled
    dialogue.receive(welcome())
    assert not dialogue.settled
    assert dialogue.ack() == {"type": "ack", "seq": 3}


def test_an_end_that_comes_again_counts_once() -> None:
    dialogue = talking("a")
    dialogue.receive(event("done", "a", 1))
    dialogue.receive(welcome("a", epoch="e2"))
    dialogue.receive(event("done", "a", 1))
    assert dialogue.ends == 1
