"""What a client knows of its session, by the rules of protocol/SPEC.md. No I/O, and no judgement.

    welcome -> what to send again      events -> what has ended, what to acknowledge

Whether the server keeps its word is decided elsewhere, from the history: a client goes on
whatever comes.
"""

from collections import deque
from typing import Any, Final

from .workload import Ask

REMEMBERED: Final = 64
"""Acknowledged requests that may be sent once more; the server remembers many more."""
LATER: Final = frozenset({"window_exceeded", "journal_unavailable", "overloaded"})
"""What was refused with these is to be sent again."""

Frame = dict[str, Any]


class Dialogue:
    """One session, over all its connections."""

    def __init__(self) -> None:
        self.session: str | None = None
        self.epoch = ""
        self.seq = 0
        self.acked = 0
        self.asks: dict[str, Ask] = {}
        """What was asked for and is not both ended and acknowledged."""
        self.remembered: deque[Ask] = deque(maxlen=REMEMBERED)
        self.replays = 0
        self.cancels = 0
        self.ends = 0

    @property
    def unfinished(self) -> int:
        """How many requests were sent and have not ended."""
        return sum(ask.sent and not ask.ended for ask in self.asks.values())

    @property
    def waiting_for(self) -> list[str]:
        """The ids of requests that have not ended."""
        return [ask.id for ask in self.asks.values() if not ask.ended]

    @property
    def settled(self) -> bool:
        """Tell whether everything has ended and all events are acknowledged."""
        return self.acked == self.seq and all(ask.ended for ask in self.asks.values())

    def hello(self) -> Frame:
        """Return the hello of a new connection, without its token."""
        if self.session is None:
            return {"type": "hello"}
        return {"type": "hello", "session": self.session, "epoch": self.epoch, "seq": self.seq}

    def ack(self) -> Frame:
        """Return an ack of everything that has come."""
        self.acked = self.seq
        # All events of these are among what is acknowledged now.
        for ask in [ask for ask in self.asks.values() if ask.ended]:
            del self.asks[ask.id]
            self.remembered.append(ask)
        return {"type": "ack", "seq": self.seq}

    def receive(self, frame: Frame) -> None:
        """Take one frame of the server."""
        kind = frame["type"]
        ask = self.asks.get(frame.get("id", ""))
        if kind == "welcome":
            self._welcome(frame)
        elif kind == "accepted" and ask is not None:
            ask.sent = ask.accepted = True
        elif kind == "error" and "seq" not in frame:
            if ask is not None and frame["code"] in LATER and not ask.accepted:
                ask.sent = False
        elif kind in {"result", "done", "error"} and "seq" in frame:  # else of a live method
            self.seq = frame["seq"]
            if ask is not None and kind != "result" and not ask.ended:
                ask.ended = True
                self.ends += 1
                self.replays += frame["attempt"] > 1
                self.cancels += frame.get("code") == "cancelled"

    def _welcome(self, frame: Frame) -> None:
        self.acked = 0  # an ack on a connection that was lost may be lost, too
        if frame["epoch"] != self.epoch or not frame["resumed"]:
            self.seq = 0
        if not frame["resumed"]:
            # Nothing was accepted in the old session, if there was one: ask for it all in this.
            self.remembered.clear()
            self.asks = {ask.id: Ask(ask.id, ask.frame) for ask in self._unended()}
        self.session = frame["session"]
        self.epoch = frame["epoch"]
        known = {request["id"] for request in frame["requests"]}
        for ask in self._unended():
            ask.sent = ask.accepted = ask.id in known

    def _unended(self) -> list[Ask]:
        return [ask for ask in self.asks.values() if not ask.ended]
