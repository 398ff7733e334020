"""A real WebSocket server that follows a script, to provoke what a client must cope with.

A script is a list of connections, a connection a list of steps, a step an object with one key:

    {"expect": {...}}       the next frame of the client has these fields; a text "$x" stands for
                            any value the first time and for the same value from then on
    {"expect_after": [SECONDS, {...}]}  the same, no sooner than so long after the step before
    {"welcome": {...}}      send `welcome`, with these fields changed; `expires_in` is in seconds
    {"send": [{...}, ...]}  send these frames as one message
    {"send_each": [...]}    send these frames as one message each
    {"text": "..."}         send this message
    {"quiet": true}         the client has sent nothing else
    {"close": CODE}         close with this code
    {"drop": true}          cut the connection without a close frame
    {"gone": true}          the client closes the connection, or cuts it
    {"away": true}          let nobody connect any more
    {"refuse": STATUS}      (the only step of a connection) answer with this HTTP status

`ack` frames are passed over unless a step expects one. A script that is through waits for `bye`
and closes with 1000; another frame then, and a connection too many, are failures.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from protocol.frames import SUBPROTOCOL

SCENARIOS: list[dict[str, Any]] = json.loads(
    Path(__file__).with_name("client_scripts.json").read_text()
)
"""What every client must pass, a behaviour each: a dialogue (`connections`), and how requests end.

A client takes the `tokens` one after the other (or has only the token "t"), takes over the session
`resume` if there is one, and sends the `requests` at once, the one with `cancel_after` being
cancelled after so many results. Its `outcomes` are those of the requests taken over, then those of
its own: {"results": [...]} and the `attempt` if it is not the first, {"error": CODE}, or
{"failed": CLOSE CODE or null} when there is no connection any more.
"""
Step = dict[str, Any]
EXPECT_SECONDS = 10.0
WELCOME: dict[str, Any] = {
    "type": "welcome",
    "session": "s",
    "resumed": False,
    "epoch": "e1",
    "seq": 0,
    "requests": [],
    "expires_at": 4_000_000_000,
    "limits": {
        "window": 64,
        "max_message_bytes": 1_048_576,
        "max_result_bytes": 16_777_216,
        "resume_seconds": 86_400,
    },
    "server": {"name": "scripted", "version": "1"},
}


class ScriptedServer:
    """Follows `script`; leaving the block raises the first deviation.

    `acks` are the numbers the client acknowledged, by connection; `bound` the values of `$` names.
    """

    def __init__(self, script: Sequence[Sequence[Step]]) -> None:
        self.bound: dict[str, Any] = {}
        self.acks: list[list[int]] = []
        self._script = deque(script)
        self._failure: str | None = None

    @property
    def url(self) -> str:
        port = self._server.sockets[0].getsockname()[1]
        return f"ws://127.0.0.1:{port}/ws"

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            0,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            process_request=self._process_request,
            compression=None,
        )
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        await self._server.wait_closed()
        if self._failure is not None:
            raise AssertionError(self._failure)
        assert not self._script, f"connections that never came: {list(self._script)}"

    def _process_request(self, connection: ServerConnection, _request: Request) -> Response | None:
        if self._script and "refuse" in self._script[0][0]:
            return connection.respond(self._script.popleft()[0]["refuse"], "refused\n")
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        if not self._script:
            self._fail("a connection too many")
            await connection.close(4500, "a connection too many")
            return
        dialogue = _Dialogue(connection, self.bound, self._server)
        self.acks.append(dialogue.acks)
        try:
            await dialogue.follow(self._script.popleft())
        except ConnectionClosed as closed:
            self._fail(f"connection {len(self.acks)} was closed early: {closed}")
        except AssertionError as error:
            self._fail(f"connection {len(self.acks)}: {error}")
            await connection.close(4500, "not what the script expects")

    def _fail(self, text: str) -> None:
        self._failure = self._failure or text


class _Dialogue:
    """One connection."""

    def __init__(self, connection: ServerConnection, bound: dict[str, Any], server: Server) -> None:
        self.acks: list[int] = []
        self._server = server
        self._connection = connection
        self._bound = bound
        self._frames: deque[dict[str, Any]] = deque()

    async def follow(self, steps: Sequence[Step]) -> None:
        for step in steps:
            ((kind, value),) = step.items()
            if kind in {"close", "drop", "gone"}:
                await self._end(kind, value)
                return
            await self._step(kind, value)
        await self._expect({"type": "bye"})
        await self._connection.close(1000, "bye")

    async def _end(self, kind: str, value: Any) -> None:
        match kind:
            case "gone":
                await self._connection.wait_closed()
            case "close":
                await self._connection.close(value, f"scripted: {value}")
            case _:
                self._connection.transport.abort()

    async def _step(self, kind: str, value: Any) -> None:
        match kind:
            case "expect":
                await self._expect(value)
            case "expect_after":
                since = time.monotonic()
                await self._expect(value[1])
                seconds = time.monotonic() - since
                assert seconds >= value[0], f"{value[1]} came after {seconds:.3f} s"
            case "welcome":
                await self._send([WELCOME | _expiring(value)])
            case "send":
                await self._send(value)
            case "send_each":
                for frame in value:
                    await self._send([frame])
            case "text":
                await self._connection.send(value)
            case "quiet":
                await self._expect_nothing()
            case "away":
                self._server.close(close_connections=False)
            case _:
                raise AssertionError(f"no such step: {kind}")

    async def _send(self, frames: Sequence[dict[str, Any]]) -> None:
        await self._connection.send("\n".join(json.dumps(self._fill(frame)) for frame in frames))

    async def _expect(self, pattern: dict[str, Any]) -> None:
        frame = await self._next(acks=pattern["type"] == "ack")
        for name, wanted in pattern.items():
            value = frame.get(name)
            if isinstance(wanted, str) and wanted.startswith("$"):
                wanted = self._bound.setdefault(wanted, value)  # noqa: PLW2901
            assert value == wanted, f"expected {self._fill(pattern)}, got {frame}"

    async def _expect_nothing(self) -> None:
        # What the client had to say when it got the ping came before its pong.
        await (await self._connection.ping())
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                while True:
                    self._take(await self._connection.recv())
        more = [frame for frame in self._frames if frame["type"] != "ack"]
        assert not more, f"the client also sent {more}"

    async def _next(self, *, acks: bool) -> dict[str, Any]:
        while True:
            while not self._frames:
                async with asyncio.timeout(EXPECT_SECONDS):
                    self._take(await self._connection.recv())
            frame = self._frames.popleft()
            if frame["type"] == "ack":
                self.acks.append(frame["seq"])
            if acks or frame["type"] != "ack":
                return frame

    def _take(self, message: str | bytes) -> None:
        assert isinstance(message, str), "the client sent a binary message"
        self._frames.extend(map(json.loads, message.split("\n")))

    def _fill(self, value: Any) -> Any:
        """Put in the values that `$` names stand for."""
        if isinstance(value, dict):
            return {name: self._fill(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self._fill(inner) for inner in value]
        if isinstance(value, str) and value.startswith("$"):
            return self._bound.get(value, value)
        return value


def _expiring(fields: dict[str, Any]) -> dict[str, Any]:
    fields = dict(fields)
    seconds = fields.pop("expires_in", None)
    return fields if seconds is None else fields | {"expires_at": time.time() + seconds}
