"""A server that says whatever it likes to the client's rules, chosen byte by byte.

HostileServer(choices).run(): steps until the choices are used up -> what must always hold
"""

from collections.abc import Callable
from typing import Final

from protocol import frames as wire
from protocol.client_call import ITEM_BYTES, Call, Phase
from protocol.client_errors import ClientError, ConnectionFailed
from protocol.client_rules import Rules
from protocol.codec import FrameError, decode_client_message, decode_server_message
from tests.fuzz.choices import Choices

_NUMBERS: Final = (0, 1, 2, 3, 4, 5, 7, 100, -1, 2**31, 2**63, 10**30)
_SECONDS: Final = (0.0, 0.01, 1.0, -1.0, 1e9, 1e308)
_CODES: Final = ("window_exceeded", "overloaded", "cancelled", "timeout", "", "x" * 1000)
_DATA: Final = ("1", '"text"', "[1,2]", "1e999", '"\\ud800"', "null", '"' + "x" * 500 + '"')


class HostileServer:
    """See above. `trace` says what was done, for people who look for the reason of a failure."""

    def __init__(self, data: bytes) -> None:
        self.trace: list[str] = []
        self._choices = Choices(data)
        adopting = self._choices.below(4) == 0
        self._client = Rules(
            prefix="c", random=lambda: 0.5, resume="s" if adopting else None, buffer_bytes=2000
        )
        self._now = 0.0
        self._calls: list[Call] = []
        self._steps: tuple[Callable[[], None], ...] = (
            self._submit,
            self._submit,
            self._cancel,
            self._send,
            self._send,
            self._connect,
            self._lose,
            self._say,
            self._say,
            self._say,
            self._say,
            self._wait,
            self._take,
        )

    def run(self) -> None:
        """Take all steps. Raises whatever goes wrong."""
        try:
            self._connect()
            while self._choices.left:
                step = self._steps[self._choices.below(len(self._steps))]
                self.trace.append(step.__name__)
                step()
                self._always_holds()
            self._client.fail("over")
            assert all(call.ended for call in self._calls)
        except ConnectionFailed:
            pass  # documented: the session to take over is not there
        except BaseException as error:
            error.add_note("after: " + " ".join(self.trace))
            raise

    # The client

    def _submit(self) -> None:
        self._calls.append(self._client.submit("m", {"number": len(self._calls)}))

    def _cancel(self) -> None:
        if self._calls:
            self._client.cancel(self._calls[-1 - self._choices.below(len(self._calls))])

    def _send(self) -> None:
        if message := self._client.take():
            frames = decode_client_message(message)
            assert not [frame for frame in frames if isinstance(frame, FrameError)]

    def _wait(self) -> None:
        self._now += 0.06
        self._client.tick(self._now)

    def _take(self) -> None:
        if self._calls:
            call = self._calls[-1 - self._choices.below(len(self._calls))]
            if self._choices.below(8) == 0:
                call.drop()
            else:
                call.take()

    # The server

    def _connect(self) -> None:
        choose = self._choices.below
        if self._client.online:
            self._client.lost()
        decode_client_message(self._client.hello("token"))
        first = not self.trace  # then no server can know what the client's ids will be
        manifest = [
            wire.RequestStatus(
                f"r-{choose(4)}" if first else self._id(),
                self._number(),
                ("waiting", "running", "ended")[choose(3)],  # type: ignore[arg-type]
                self._number(),
                self._number(),
            )
            for _ in range(choose(4))
        ]
        welcome = wire.Welcome(
            session=("s", "t", "")[choose(3)],
            resumed=choose(3) > 0,
            epoch=("e1", "e2", "")[choose(3)],
            seq=self._number(),
            requests=manifest,
            expires_at=_SECONDS[choose(len(_SECONDS))],
            limits=wire.Limits(
                (4, 1, 0, -1)[choose(4)],
                (1_000_000, 200, 0, -1)[choose(4)],
                (1_000_000, 0, -1)[choose(3)],
                1.0,
            ),
            server=wire.ServerInfo("hostile", "1"),
        )
        self._client.welcome(welcome, self._now)

    def _lose(self) -> None:
        self._client.lost()

    def _say(self) -> None:
        if not self._client.online:
            return
        count = 1 + self._choices.below(4)
        message = "\n".join(self._frame() for _ in range(count))
        self.trace.append(message)
        self._client.receive(decode_server_message(message.encode()), self._now)

    def _frame(self) -> str:
        choose = self._choices.below
        request_id = self._id()
        seq = self._seq()
        attempt = _NUMBERS[choose(4)]
        match choose(8):
            case 0 | 1:
                more = ("", ',"duplicate":true,"state":"acknowledged"', ',"state":"ended"')
                return (
                    f'{{"type":"accepted","id":"{request_id}","n":{self._number()}'
                    f"{more[choose(3)]}}}"
                )
            case 2 | 3:
                return (
                    f'{{"type":"result","id":"{request_id}","attempt":{attempt},"seq":{seq},'
                    f'"index":{self._number()},"data":{_DATA[choose(len(_DATA))]}}}'
                )
            case 4:
                return (
                    f'{{"type":"done","id":"{request_id}","seq":{seq},"attempt":{attempt},'
                    f'"results":{self._number()}}}'
                )
            case 5 | 6:
                code = _CODES[choose(len(_CODES))]
                more = (
                    "",
                    f',"seq":{seq},"attempt":{attempt}',
                    f',"retry_after":{_SECONDS[choose(len(_SECONDS))]}',
                )
                retryable = ("true", "false")[choose(2)]
                return (
                    f'{{"type":"error","code":"{code}","message":"m","retryable":{retryable},'
                    f'"id":"{request_id}"{more[choose(3)]}}}'
                )
            case _:
                seconds = _SECONDS[choose(len(_SECONDS))]
                return (
                    f'{{"type":"goaway","reason":"r","reconnect_after":{seconds}}}',
                    f'{{"type":"refreshed","expires_at":{seconds}}}',
                    '{"type":"new"}',
                    "nonsense",
                )[choose(4)]

    def _id(self) -> str:
        return f"{('c', 'c', 'r')[self._choices.below(3)]}-{1 + self._choices.below(8)}"

    def _seq(self) -> int:
        if self._choices.below(3):
            return self._client._seq + 1
        return self._number()

    def _number(self) -> int:
        return _NUMBERS[self._choices.below(len(_NUMBERS))]

    # What always holds

    def _always_holds(self) -> None:
        client = self._client
        phases = [call.phase for call in client.calls.values()]
        assert Phase.ENDED not in phases
        assert all(call.ended != (client.calls.get(call.id) is call) for call in self._calls)
        assert all(isinstance(call.error, ClientError | None) for call in self._calls if call.ended)
        assert client._frame_bytes == sum(len(call.frame) for call in client.calls.values())
        if client.online:
            assert client._unanswered == phases.count(Phase.SENT)
            assert client._in_flight == phases.count(Phase.SENT) + phases.count(Phase.ACCEPTED)
        held = [call for call in self._calls if call.items]
        kept = sum(len(data) + ITEM_BYTES for call in held for _, data in call.items or ())
        assert client.buffer.size_bytes >= kept
        assert len(client._pending) <= 2 * len(client.calls) + len(self._calls)
        assert len(client._control) <= len(self._calls)
