"""The checker believes every history of a true server, and none in which one thing was changed."""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import convert, to_builtins

from scripts.checking.checker import check
from scripts.checking.history import Event, HistoryError
from tests.simulated import World

STEPS = 300

Line = dict[str, Any]
Change = Callable[[list[Line], int], list[Line] | None]
"""Returns the history with the line of that number changed; None when that line is not its kind."""


def history(seed: int) -> list[Line]:
    world = World(Random(seed))  # noqa: S311 - not a secret
    world.steps(STEPS)
    return [to_builtins(event) for event in world.history]


def is_right(lines: list[Line]) -> bool:
    """Tell whether the checker believes a history."""
    events = [convert({**line, "t": float(t)}, Event) for t, line in enumerate(lines, start=1)]
    try:
        return check(events) is None
    except HistoryError:
        return False


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_a_true_history_is_believed(seed: int) -> None:
    assert is_right(history(seed))


# One change


def received(line: Line, kind: str) -> bool:
    return line["ev"] == "recv" and line["frame"]["type"] == kind


def with_frame(lines: list[Line], at: int, **changes: Any) -> list[Line]:
    return with_line(lines, at, frame=lines[at]["frame"] | changes)


def with_line(lines: list[Line], at: int, **changes: Any) -> list[Line]:
    return [*lines[:at], lines[at] | changes, *lines[at + 1 :]]


def after(lines: list[Line], at: int) -> Iterator[Line]:
    """Yield what is received later on the same connection."""
    conn = lines[at]["conn"]
    return (line for line in lines[at + 1 :] if line["ev"] == "recv" and line["conn"] == conn)


def change_a_number(lines: list[Line], at: int) -> list[Line] | None:
    if not received(lines[at], "accepted"):
        return None
    return with_frame(lines, at, n=lines[at]["frame"]["n"] + 1)


def lose_an_event(lines: list[Line], at: int) -> list[Line] | None:
    if "seq" not in lines[at].get("frame", {}) or lines[at]["ev"] == "send":
        return None
    if received(lines[at], "welcome") or not any("seq" in e["frame"] for e in after(lines, at)):
        return None
    return lines[:at] + lines[at + 1 :]


def repeat_an_event(lines: list[Line], at: int) -> list[Line] | None:
    if lines[at]["ev"] != "recv" or "seq" not in lines[at]["frame"]:
        return None
    return [*lines[: at + 1], *lines[at:]]


def change_a_result(lines: list[Line], at: int) -> list[Line] | None:
    return with_frame(lines, at, data="other") if received(lines[at], "result") else None


def change_an_index(lines: list[Line], at: int) -> list[Line] | None:
    if not received(lines[at], "result"):
        return None
    return with_frame(lines, at, index=lines[at]["frame"]["index"] + 1)


def count_a_result_more(lines: list[Line], at: int) -> list[Line] | None:
    if not received(lines[at], "done"):
        return None
    return with_frame(lines, at, results=lines[at]["frame"]["results"] + 1)


def end_in_another_attempt(lines: list[Line], at: int) -> list[Line] | None:
    if not received(lines[at], "done"):
        return None
    return with_frame(lines, at, attempt=lines[at]["frame"]["attempt"] + 1)


def swap_two_ends(lines: list[Line], at: int) -> list[Line] | None:
    if not received(lines[at], "done"):
        return None
    other = next((e for e in after(lines, at) if received(e, "done")), None)
    if other is None:
        return None
    there = next(i for i in range(at + 1, len(lines)) if lines[i] is other)
    mine = {name: lines[at]["frame"][name] for name in ("id", "attempt", "results")}
    theirs = {name: other["frame"][name] for name in ("id", "attempt", "results")}
    return with_frame(with_frame(lines, at, **theirs), there, **mine)


def lose_an_acceptance(lines: list[Line], at: int) -> list[Line] | None:
    if not received(lines[at], "accepted") or lines[at]["frame"].get("duplicate"):
        return None
    follows = [line["frame"] for line in after(lines, at)]
    shows = any(f["type"] == "accepted" and not f.get("duplicate") for f in follows)
    return lines[:at] + lines[at + 1 :] if shows else None


def lose_a_start(lines: list[Line], at: int) -> list[Line] | None:
    if lines[at]["ev"] != "start":
        return None
    run = {name: lines[at][name] for name in ("session", "n", "attempt")}
    if not any(run.items() <= line.items() for line in lines[at + 1 :]):
        return None
    return lines[:at] + lines[at + 1 :]


def repeat_a_start(lines: list[Line], at: int) -> list[Line] | None:
    return [*lines[: at + 1], *lines[at:]] if lines[at]["ev"] == "start" else None


def swap_two_starts(lines: list[Line], at: int) -> list[Line] | None:
    line = lines[at]
    if line["ev"] != "start":
        return None
    for there in range(at + 1, len(lines)):
        other = lines[there]
        if other["ev"] == "down" and other["server"] == line["server"]:
            return None
        if other["ev"] == "start" and other["session"] == line["session"]:
            what = ("n", "id", "attempt")
            mine = {name: line[name] for name in what}
            theirs = {name: other[name] for name in what}
            return with_line(with_line(lines, at, **theirs), there, **mine)
    return None


def run_other_params(lines: list[Line], at: int) -> list[Line] | None:
    return with_line(lines, at, params={"k": "other"}) if lines[at]["ev"] == "start" else None


def have_run(lines: list[Line], at: int) -> dict[str, int]:
    """Return the last n that had run in each session of a `durable` line."""
    if lines[at]["ev"] != "durable":
        return {}
    ran: dict[str, int] = {}
    for line in lines[:at]:
        if line["ev"] == "start" and line["session"] in lines[at]["sessions"]:
            ran[line["session"]] = max(line["n"], ran.get(line["session"], 0))
    return ran


def forget_a_session(lines: list[Line], at: int) -> list[Line] | None:
    return with_line(lines, at, sessions={}) if have_run(lines, at) else None


def forget_the_last_request(lines: list[Line], at: int) -> list[Line] | None:
    for name, n in have_run(lines, at).items():
        less = {"last_n": n - 1, "closed": False, "live": []}
        return with_line(lines, at, sessions=lines[at]["sessions"] | {name: less})
    return None


def forget_an_unfinished_request(lines: list[Line], at: int) -> list[Line] | None:
    if lines[at]["ev"] != "durable":
        return None
    for name, said in lines[at]["sessions"].items():
        unfinished = [row for row in said["live"] if row[3] is None]
        if unfinished:
            live = [row for row in said["live"] if row is not unfinished[0]]
            sessions = lines[at]["sessions"] | {name: said | {"live": live}}
            return with_line(lines, at, sessions=sessions)
    return None


def list_a_request_less(lines: list[Line], at: int) -> list[Line] | None:
    if not received(lines[at], "welcome"):
        return None
    frame = lines[at]["frame"]
    hello = max(
        i for i in range(at) if lines[i]["ev"] == "send" and lines[i]["conn"] == lines[at]["conn"]
    )
    for row in frame["requests"]:
        if row["state"] == "waiting" and any(
            line["ev"] == "recv"
            and line["frame"]["type"] == "accepted"
            and line["frame"]["id"] == row["id"]
            for line in lines[:hello]
        ):
            return with_frame(lines, at, requests=[r for r in frame["requests"] if r is not row])
    return None


def lose_the_session(lines: list[Line], at: int) -> list[Line] | None:
    if not received(lines[at], "welcome") or not lines[at]["frame"]["requests"]:
        return None
    return with_frame(lines, at, resumed=False)


def keep_the_epoch(lines: list[Line], at: int) -> list[Line] | None:
    """The next process numbers events as if it were the one before."""
    if not received(lines[at], "welcome"):
        return None
    frame = lines[at]["frame"]
    older = {e["frame"]["epoch"] for e in lines[:at] if received(e, "welcome")} - {frame["epoch"]}
    return with_frame(lines, at, epoch=min(older)) if older else None


CHANGES: list[Change] = [
    change_a_number,
    lose_an_event,
    repeat_an_event,
    change_a_result,
    change_an_index,
    count_a_result_more,
    end_in_another_attempt,
    swap_two_ends,
    lose_an_acceptance,
    lose_a_start,
    repeat_a_start,
    swap_two_starts,
    run_other_params,
    forget_a_session,
    forget_the_last_request,
    forget_an_unfinished_request,
    list_a_request_less,
    lose_the_session,
    keep_the_epoch,
]


def changed(change: Change, seed: int, choice: int) -> list[Line]:
    """Return a history with that change, from the first seed whose history can have it."""
    while True:
        lines = history(seed)
        ways = [other for at in range(len(lines)) if (other := change(lines, at)) is not None]
        if ways:
            return ways[choice % len(ways)]
        seed += 1


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), choice=st.integers(0, 2**32))
def test_a_changed_history_is_not_believed(change: Change, seed: int, choice: int) -> None:
    assert not is_right(changed(change, seed, choice))
