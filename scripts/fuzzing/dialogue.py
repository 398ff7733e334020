"""What a hostile client says in a session: any frame at any time, about anything.

    Dialogue.message() -> the text of the next message, most of it understandable

Ids come from a small set, so that they are used again, conflict, are cancelled and were
acknowledged; sessions are resumed, taken over and ended while others use them.
"""

from collections.abc import Sequence
from random import Random
from typing import Any, Final

from .mutation import ODD_VALUES, mutate_bytes, object_text

_METHODS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("echo", {"text": "to be or not to be"}),
    ("anything", {"a": [1, {"b": None}], "b": 2, "c": ["d"]}),
    ("count", {"upto": 3, "size": 10}),
    ("count", {"upto": 60, "size": 2000}),
    ("ticks", {"upto": 5}),
    ("pause", {"seconds": 0.005}),
    ("endless", {}),
    ("thread", {"text": "abc"}),
    ("fail", {"details": {"left": 1}}),
    ("secret", {}),
    ("ecko", {}),
)


class Tokens:
    """The tokens of one subject: `good` ones (with different scopes), and `bad` ones."""

    def __init__(self, good: Sequence[str], bad: Sequence[str]) -> None:
        self.good = good
        self.bad = bad

    def any(self, random: Random) -> str:
        """Return one, rarely a bad one."""
        token = random.choice(self.bad if random.random() < 0.1 else self.good)
        if random.random() < 0.03:
            return mutate_bytes(token.encode(), random).decode(errors="replace")
        return token


class Dialogue:
    """One connection's side of it. `seq` is the last event seen, `session` what it was given."""

    def __init__(self, random: Random, tokens: Tokens, badness: float) -> None:
        self.random = random
        self.seq = 0
        self._tokens = tokens
        self._badness = badness

    def hello(self, session: str | None) -> str:
        """Return a first message, which is good most of the time."""
        random = self.random
        fields: dict[str, Any] = {"type": "hello", "token": self._tokens.any(random)}
        if session is not None:
            fields |= {"session": session, "epoch": "", "seq": random.randrange(20)}
        if random.random() < 0.3:
            fields["started"] = True
        text = object_text(fields, random, 0.02)
        if random.random() < 0.03:
            text += "\n" + self._frame()
        return text

    def message(self) -> bytes:
        """Return the next message."""
        random = self.random
        frames = [self._frame() for _ in range(random.choice((1, 1, 1, 2, 3, 8)))]
        text = "\n".join(frames).encode(errors="surrogatepass")
        return mutate_bytes(text, random) if random.random() < self._badness else text

    def _frame(self) -> str:
        random = self.random
        fields: dict[str, Any]
        match random.choices(("request", "ack", "cancel", "rare", "odd"), (50, 20, 10, 3, 10))[0]:
            case "request":
                return self._request()
            case "ack":
                seq = self.seq if random.random() < 0.7 else random.randrange(300)
                fields = {"type": "ack", "seq": seq}
            case "cancel":
                fields = {"type": "cancel", "id": self._id()}
            case "rare":
                fields = self._rare()
            case _:
                kind = random.choice(("request", "result", "welcome", "", "REQUEST", "hello"))
                return random.choice(ODD_VALUES) if not kind else f'{{"type":"{kind}"}}'
        return object_text(fields, random, self._badness)

    def _request(self) -> str:
        random = self.random
        method, params = random.choice(_METHODS)
        fields: dict[str, Any] = {
            "type": "request",
            "id": self._id(),
            "method": method,
        }
        if random.random() < 0.2:
            fields["timeout"] = random.choice((0.001, 0.02, 1, 86_400))
        if random.random() < 0.1:
            fields["on_disconnect"] = random.choice(("cancel", "continue"))
        text = object_text(fields, random, self._badness)
        if params or random.random() < 0.5:
            text = text[:-1] + f',"params":{object_text(params, random, self._badness)}}}'
        return text

    def _rare(self) -> dict[str, Any]:
        random = self.random
        match random.randrange(6):
            case 0:
                return {"type": "bye", "cancel": random.random() < 0.5}
            case 1:
                return {"type": "hello", "token": self._tokens.any(random)}
            case _:
                return {"type": "refresh", "token": self._tokens.any(random)}

    def _id(self) -> str:
        return f"r{self.random.randrange(60)}"
