"""The frames of `queuesystem.v1`, one type each, as tagged unions (SPEC.md lists them).

Decoding is strict about types and about the `type` tag; unknown fields are ignored, so that
either side may be newer than the other. The frames of which there are many are not tracked by the
garbage collector (`gc=False`): nothing in them can refer back to them.
"""

from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

SUBPROTOCOL: Final = "queuesystem.v1"
"""The WebSocket subprotocol name (RFC 6455 section 1.9)."""

RequestId = Annotated[str, Meta(min_length=1, max_length=128)]
Token = Annotated[str, Meta(min_length=1, max_length=16_384)]
Sequence = Annotated[int, Meta(ge=0)]
TimeoutSeconds = Annotated[float, Meta(gt=0, le=86_400)]
RequestPhase = Literal["waiting", "running", "ended"]


def _no_params() -> Raw:
    return Raw(b"{}")


class ClientInfo(Struct, omit_defaults=True):
    """Who is calling, for the server's logs."""

    name: Annotated[str, Meta(max_length=64)] = ""
    version: Annotated[str, Meta(max_length=64)] = ""


class Hello(Struct, tag="hello", omit_defaults=True):
    """First frame of a connection: authenticate, and open or resume a session."""

    token: Token | None = None
    session: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    epoch: Annotated[str, Meta(max_length=128)] | None = None
    seq: Sequence = 0
    started: bool = False
    client: ClientInfo | None = None


class Request(Struct, tag="request", omit_defaults=True, gc=False):
    """One unit of work; `id` is unique in the session and makes sending it again safe."""

    id: RequestId
    method: Annotated[str, Meta(min_length=1, max_length=128)]
    params: Raw = field(default_factory=_no_params)
    timeout: TimeoutSeconds | None = None
    on_disconnect: Literal["continue", "cancel"] = "continue"


class Cancel(Struct, tag="cancel"):
    """End a waiting or running request with the error `cancelled`."""

    id: RequestId


class Ack(Struct, tag="ack", gc=False):
    """Every event up to and including `seq` is safely with the client."""

    seq: Sequence


class Refresh(Struct, tag="refresh"):
    """A new token of the same subject, before the old one expires."""

    token: Token


class Bye(Struct, tag="bye", omit_defaults=True):
    """The client will not come back: results are not kept; `cancel` also ends its requests."""

    cancel: bool = False


ClientFrame = Hello | Request | Cancel | Ack | Refresh | Bye


class RequestStatus(Struct):
    """One line of the manifest: a request that is unfinished or unacknowledged."""

    id: str
    n: int
    state: RequestPhase
    attempt: int
    results: int


class Limits(Struct):
    """What this server allows a session; sizes in bytes, times in seconds."""

    window: int
    max_message_bytes: int
    max_result_bytes: int
    resume_seconds: float


class ServerInfo(Struct):
    """Who is answering."""

    name: str
    version: str


class Welcome(Struct, tag="welcome", omit_defaults=True):
    """Answers `hello`, before any event; `requests` is everything unfinished or unacknowledged.

    `seq` is the last event number given out in `epoch`; `expires_at` is a Unix time in seconds.
    """

    session: str
    resumed: bool
    epoch: str
    seq: int
    requests: list[RequestStatus]
    expires_at: float
    limits: Limits
    server: ServerInfo
    reason: str | None = None


class Accepted(Struct, tag="accepted", omit_defaults=True, gc=False):
    """The request is on stable storage and will run.

    `duplicate` is true for an id that was known; `state` then says how far it is, where
    `acknowledged` means that its end was acknowledged and its results are gone.
    """

    id: str
    n: int
    duplicate: bool = False
    state: Literal["waiting", "running", "ended", "acknowledged"] | None = None


class Started(Struct, tag="started"):
    """The handler is about to run; sent only when `hello` asked for it."""

    id: str
    attempt: int


class Result(Struct, tag="result", omit_defaults=True, gc=False):
    """One item the handler yielded. `seq` is 0 (absent) for methods declared live."""

    id: str
    attempt: int
    index: int
    data: Raw
    seq: int = 0


class Done(Struct, tag="done", gc=False):
    """The request ended well, with `results` results; outcome and results are durable."""

    id: str
    seq: int
    attempt: int
    results: int


class Error(Struct, tag="error", omit_defaults=True):
    """With `seq`: the durable end of request `id`. Without: a frame was refused."""

    code: str
    message: str
    retryable: bool
    id: str | None = None
    seq: int | None = None
    attempt: int | None = None
    retry_after: float | None = None
    details: Any | UnsetType = UNSET


class Refreshed(Struct, tag="refreshed"):
    """The connection now lives until `expires_at` (Unix time in seconds)."""

    expires_at: float


class GoAway(Struct, tag="goaway"):
    """The server drains: come back in `reconnect_after` seconds (different for each client)."""

    reason: str
    reconnect_after: float


ServerFrame = Welcome | Accepted | Started | Result | Done | Error | Refreshed | GoAway
