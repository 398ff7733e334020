"""A client written from protocol/SPEC.md, to notice what the server gets wrong.

    visit: handshake -> hello -> welcome -> what the server does not have is sent again
           -> events until every request has ended -> ack -> bye -> close

It keeps the rules of the specification and holds the server to them: a number that is missing or
comes twice, a result out of place, an end out of order are failed assertions.
"""

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from scripts.bench.framing import CLOSE, PING, PONG, TEXT
from tests.network.wire import HANDSHAKE, Wire, close_payload, dialled
from tests.server_process import token

Fields = dict[str, Any]

BEARER = "Bearer " + token("spec")


class SpecClient:
    """One session with a few requests; `visit` goes on wherever the last one was cut.

    `results` and `ended` are what has come. `may_crash` says that the server may be killed between
    two visits: then attempts may grow, and events may come again in a new epoch.
    """

    def __init__(self, requests: Sequence[Fields], *, may_crash: bool = False) -> None:
        self.results: dict[str, list[Any]] = {one["id"]: [] for one in requests}
        self.attempts: dict[str, int] = {one["id"]: 1 for one in requests}
        self.ended: list[str] = []
        self.over = False
        self._may_crash = may_crash
        self._requests = {one["id"]: {"type": "request", **one} for one in requests}
        self._session: str | None = None
        self._epoch = ""
        self._seq = 0
        self._positions: dict[str, int] = {}
        self._said_bye = False
        self._frames: deque[Fields] = deque()

    async def visit(
        self, port: int, host: str = "127.0.0.1", *, leave_unacknowledged: bool = False
    ) -> bool:
        """Connect and go on to the end; False when the connection was cut before.

        `leave_unacknowledged` goes away, as if cut, when everything has ended.
        """
        self._frames.clear()
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            async with dialled(port, host) as wire:
                # The smallest handshake: each byte of it is a place to be cut at.
                await wire.handshake({**HANDSHAKE, "Host": "x", "Authorization": BEARER})
                await self._greet(wire)
                while len(self.ended) < len(self._requests):
                    self._take(await self._next(wire))
                if leave_unacknowledged:
                    return False
                await self._leave(wire)
                self.over = True
        return self.over

    def forgetful(self) -> "SpecClient":
        """Return a client of the same session that has seen nothing of it."""
        other = SpecClient([])
        other._requests = self._requests
        other.results = {request_id: [] for request_id in self._requests}
        other.attempts = dict(self.attempts)
        other._session, other._epoch = self._session, self._epoch
        return other

    async def _greet(self, wire: Wire) -> None:
        hello: Fields = {"type": "hello"}
        if self._session is not None:
            hello |= {"session": self._session, "epoch": self._epoch, "seq": self._seq}
        self._say(wire, hello)
        welcome = await self._next(wire)
        assert welcome["type"] == "welcome", welcome
        if self._session is not None and not welcome["resumed"]:
            assert self._said_bye, "the server forgot a session that had not ended"
            assert len(self.ended) == len(self._requests)
        elif self._session is not None and welcome["epoch"] != self._epoch:
            assert self._may_crash
            self._seq = 0
        elif self._session is not None:
            assert welcome["seq"] >= self._seq
        self._session, self._epoch = welcome["session"], welcome["epoch"]
        known = {one["id"]: one for one in welcome["requests"]}
        for request_id, one in known.items():
            assert self._positions.setdefault(request_id, one["n"]) == one["n"]
        unknown = [
            request
            for request_id, request in self._requests.items()
            if request_id not in known and request_id not in self.ended
        ]
        for request in unknown:
            assert request["id"] not in self._positions, "accepted, and not in the manifest"
        if unknown:
            self._say(wire, *unknown)

    def _take(self, frame: Fields) -> None:
        request_id = frame["id"]
        if frame["type"] == "accepted":
            assert self._positions.setdefault(request_id, frame["n"]) == frame["n"]
            return
        assert frame["seq"] == self._seq + 1, "an event is missing or came again"
        self._seq = frame["seq"]
        if request_id in self.ended:
            assert self._may_crash, "an event of a request that has ended"
            return
        results = self.results[request_id]
        if frame["attempt"] > self.attempts[request_id]:
            assert self._may_crash, "a request ran twice"
            self.attempts[request_id] = frame["attempt"]
            results.clear()
        assert frame["attempt"] == self.attempts[request_id]
        match frame["type"]:
            case "result" if frame["index"] < len(results):
                assert self._may_crash, "a result came again"
                assert results[frame["index"]] == frame["data"]
            case "result":
                assert frame["index"] == len(results), "a result is missing"
                results.append(frame["data"])
            case "done":
                assert frame["results"] == len(results)
                self.ended.append(request_id)
            case other:
                raise AssertionError(f"{other}: {frame}")

    async def _leave(self, wire: Wire) -> None:
        self._say(wire, {"type": "ack", "seq": self._seq}, {"type": "bye"})
        self._said_bye = True
        while (frame := await wire.receive()).opcode != CLOSE:
            pass
        assert frame.close_code == 1000
        wire.send(CLOSE, close_payload(1000))
        assert await wire.rest() == b""

    def _say(self, wire: Wire, *frames: Fields) -> None:
        wire.send(TEXT, "\n".join(json.dumps(one) for one in frames).encode())

    async def _next(self, wire: Wire) -> Fields:
        while not self._frames:
            frame = await wire.receive()
            if frame.opcode == PING:
                wire.send(PONG, frame.payload)
            elif frame.opcode == CLOSE:
                raise AssertionError(f"the server closed with {frame.close_code}")
            else:
                self._frames.extend(json.loads(line) for line in frame.payload.split(b"\n"))
        return self._frames.popleft()
