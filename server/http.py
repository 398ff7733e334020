"""Plain HTTP beside the WebSocket, on the same port: probes, tokens, and who may open a socket.

    GET  /ws       -> a token in `Authorization` is checked here, then the WebSocket handshake
    GET  /livez    -> 200 while the event loop runs
    GET  /readyz   -> 200, or 503 with the reasons
    POST /token    -> name and password (HTTP Basic) against a token; no request body
    GET  /methods  -> what who has a token may call; the token is in `Authorization`
    GET  /, ...    -> the web console, if it is on (console.py)

A browser learns nothing from a refused handshake (it reports 1006 whatever the status), so only
what programs send is refused here; the rest is refused after the handshake, with a close code.
"""

import base64
import math
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import SplitResult, parse_qs, urlsplit

import msgspec
import structlog
from websockets.datastructures import Headers, MultipleValuesError
from websockets.http11 import Request, Response

from server.admission import Admission, NotNow
from server.auth import Identity, KeysUnavailable, Unauthenticated, Verifier
from server.connection import Connection
from server.console import HEADERS, StaticFile
from server.exposition import Exposition
from server.handlers import Handlers
from server.journal.log import JournalError
from server.journal.store import User
from server.readiness import Readiness
from server.users import Accounts, LoginRefused, TooManyLogins

TOKEN_NAMES: Final = frozenset({"token", "access_token", "jwt", "authorization"})
"""Query parameters that look like a token: URLs end up in logs and histories."""

_log = structlog.get_logger(__name__)

Issue = Callable[[User], tuple[str, float]]
"""Makes the token of a user; returns it with its life in seconds."""


class _HttpError(Exception):
    """A response other than success."""

    def __init__(self, status: HTTPStatus, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class HttpRoutes:
    """Answers requests (for listener.py).

    `readiness` tells whether the server is ready. `issue` is None when this
    server has no secret to sign tokens with. `files` are served to everybody, by their paths.
    `admission` says who may have a WebSocket now; without it everybody may.
    """

    def __init__(
        self,
        *,
        verifier: Verifier,
        accounts: Accounts,
        issue: Issue | None,
        readiness: Callable[[], Readiness],
        handlers: Handlers,
        files: Mapping[str, StaticFile],
        admission: Admission | None = None,
    ) -> None:
        self._verifier = verifier
        self._accounts = accounts
        self._issue = issue
        self._readiness = readiness
        self._handlers = handlers
        self._files = files
        self._admission = admission

    async def __call__(self, connection: Connection, request: Request) -> Response | None:
        """Return a response, or None to go on with the WebSocket handshake."""
        try:
            url = _split(request.path)
            match url.path:
                case "/ws":
                    _check_method(request, "GET")
                    _check_handshake(request)
                    _refuse_token_in_url(url.query)
                    self._admit(connection)
                    await self._identify(connection, request)
                    return None
                case "/livez":
                    _check_method(request, "GET")
                    return _live(request)
                case "/readyz":
                    _check_method(request, "GET")
                    return _ready(request, self._readiness())
                case "/token":
                    _check_method(request, "POST")
                    return await self._token(connection, request)
                case "/methods":
                    _check_method(request, "GET")
                    return await self._methods(request)
                case path if (file := self._files.get(path)) is not None:
                    _check_method(request, "GET", "HEAD")
                    return _file(request, file)
                case _:
                    return _json(HTTPStatus.NOT_FOUND, {"error": _NOTHING_HERE})
        except _HttpError as error:
            if not request.path.startswith("/token"):  # that says more itself
                # Neither the text nor the path: they may quote what the client sent.
                _log.info(
                    "http_refused",
                    connection=connection.id,
                    address=connection.address,
                    status=int(error.status),
                )
            return _json(error.status, {"error": str(error)}, error.headers)

    # WebSocket

    def _admit(self, connection: Connection) -> None:
        """Refuse, before anything costs much, a handshake over the bounds of admission.py."""
        if self._admission is None:
            return
        try:
            self._admission.admit(connection)
        except NotNow as error:
            wait = str(max(1, math.ceil(error.retry_after_seconds)))
            status = _NOT_NOW[error.limit]
            raise _HttpError(status, f"overloaded: {error}", Retry_After=wait) from None

    async def _identify(self, connection: Connection, request: Request) -> None:
        if (value := _header(request, "Authorization")) is not None:
            connection.identity = await self._bearer(value)

    async def _bearer(self, value: str) -> Identity:
        """Return who an `Authorization: Bearer` header is for (RFC 6750)."""
        scheme, _, token = value.partition(" ")
        if scheme.lower() != "bearer":
            raise _unauthorized("Bearer", f"use Authorization: Bearer, not {scheme[:32]!r}")
        try:
            return await self._verifier.verify(token.strip())
        except Unauthenticated as error:
            raise _unauthorized("Bearer", str(error)) from None
        except KeysUnavailable as error:
            raise _unavailable(str(error)) from None

    # Methods

    async def _methods(self, request: Request) -> Response:
        value = _header(request, "Authorization")
        if value is None:
            self._verifier.failures["missing"] += 1
            raise _unauthorized("Bearer", "send a token as Authorization: Bearer")
        scopes = (await self._bearer(value)).scopes
        methods = [
            method.describe()
            for method in self._handlers
            if method.scope is None or method.scope in scopes
        ]
        return _json(HTTPStatus.OK, {"methods": methods}, {"Cache-Control": "no-store"})

    # Tokens

    async def _token(self, connection: Connection, request: Request) -> Response:
        if self._issue is None:
            raise _HttpError(HTTPStatus.NOT_FOUND, "this server issues no tokens")
        name, password = _basic(_header(request, "Authorization"))
        address = connection.address
        try:
            user = await self._accounts.login(name, password, address)
        except LoginRefused as error:
            self._verifier.failures["login"] += 1
            _log.info("login_refused", connection=connection.id, address=address)
            raise _unauthorized("Basic", str(error)) from None
        except TooManyLogins as error:
            self._verifier.failures["login_throttled"] += 1
            _log.warning("login_throttled", connection=connection.id, address=address)
            wait = str(max(1, math.ceil(error.retry_after_seconds)))
            raise _HttpError(HTTPStatus.TOO_MANY_REQUESTS, str(error), Retry_After=wait) from None
        except JournalError as error:
            _log.warning("login_failed", error=str(error))
            raise _unavailable("the users cannot be read now: try again later") from None
        token, seconds = self._issue(user)
        body = {"access_token": token, "token_type": "Bearer", "expires_in": int(seconds)}
        return _json(HTTPStatus.OK, body, {"Cache-Control": "no-store"})  # RFC 6749 section 5.1


class AdminRoutes:
    """Answers requests on the admin port, which has no WebSocket, no tokens and no secrets.

    GET  /metrics          -> what `metrics` makes for these `Accept` and `Accept-Encoding`
    GET  /livez, /readyz   -> as on the public port
    """

    def __init__(
        self,
        *,
        metrics: Callable[[str, str], Exposition],
        readiness: Callable[[], Readiness],
    ) -> None:
        self._metrics = metrics
        self._readiness = readiness

    async def __call__(self, connection: Connection, request: Request) -> Response:
        """Return a response."""
        try:
            match _split(request.path).path:
                case "/metrics":
                    _check_method(request, "GET", "HEAD")
                    return self._exposition(request)
                case "/livez":
                    _check_method(request, "GET", "HEAD")
                    return _live(request)
                case "/readyz":
                    _check_method(request, "GET", "HEAD")
                    return _ready(request, self._readiness())
                case _:
                    return _json(HTTPStatus.NOT_FOUND, {"error": _ADMIN_NOTHING_HERE})
        except _HttpError as error:
            return _json(error.status, {"error": str(error)}, error.headers)

    def _exposition(self, request: Request) -> Response:
        made = self._metrics(
            ",".join(request.headers.get_all("Accept")),
            ",".join(request.headers.get_all("Accept-Encoding")),
        )
        fields = Headers(
            {
                "Content-Length": str(len(made.body)),
                "Connection": "close",
                "X-Content-Type-Options": "nosniff",
                "Cache-Control": "no-store",
                "Vary": "Accept, Accept-Encoding",
                **made.headers,
            }
        )
        return _without_body_for_head(request, HTTPStatus.OK, fields, made.body)


def _live(request: Request) -> Response:
    return _json(HTTPStatus.OK, {"status": "live"}, request=request)


def _ready(request: Request, readiness: Readiness) -> Response:
    body = readiness.as_json()
    if readiness.reasons:
        return _json(HTTPStatus.SERVICE_UNAVAILABLE, body, request=request)
    return _json(HTTPStatus.OK, body, request=request)


_NOT_NOW: Final = {
    "connections_per_address": HTTPStatus.TOO_MANY_REQUESTS,  # RFC 6585 section 4
    "handshake_rate": HTTPStatus.SERVICE_UNAVAILABLE,
}
_VERSION: Final = "13"
_VERSION_HEADER: Final = "Sec-WebSocket-Version"
_NOTHING_HERE: Final = (
    "nothing is here: the WebSocket is at /ws, and there are /livez, /readyz, POST /token and "
    "/methods"
)
_ADMIN_NOTHING_HERE: Final = (
    "nothing is here: this is the admin port, with /metrics, /livez and /readyz"
)


def _split(path: str) -> SplitResult:
    try:
        return urlsplit(path)
    except ValueError as error:  # such as a bracket without its partner
        raise _HttpError(HTTPStatus.BAD_REQUEST, f"the path cannot be read: {error}") from None


def _check_handshake(request: Request) -> None:
    """Check what RFC 6455 section 4.2 asks for and the library does not."""
    _header(request, "Origin")  # the gateway goes by it
    if _header(request, "Host") is None:
        raise _HttpError(HTTPStatus.BAD_REQUEST, "no Host header")
    version = _header(request, _VERSION_HEADER)
    if version not in {None, _VERSION}:
        raise _HttpError(
            HTTPStatus.UPGRADE_REQUIRED,
            f"this is WebSocket version {_VERSION}, not {str(version)[:32]!r}",
            Upgrade="websocket",
            **{_VERSION_HEADER: _VERSION},
        )


def _check_method(request: Request, *allowed: str) -> None:
    if request.method not in allowed:
        raise _HttpError(
            HTTPStatus.METHOD_NOT_ALLOWED,
            f"use {allowed[0]}, not {request.method}",
            Allow=", ".join(allowed),
        )


def _refuse_token_in_url(query: str) -> None:
    names = {name.lower() for name in parse_qs(query, keep_blank_values=True)}
    if found := sorted(names & TOKEN_NAMES):
        raise _HttpError(
            HTTPStatus.BAD_REQUEST,
            f"{found[0]} in the URL: URLs are logged. "
            "Send the token in the hello frame, or as Authorization: Bearer",
        )


def _header(request: Request, name: str) -> str | None:
    try:
        return request.headers.get(name)
    except MultipleValuesError:
        raise _HttpError(HTTPStatus.BAD_REQUEST, f"more than one {name} header") from None


def _basic(value: str | None) -> tuple[str, str]:
    """Return name and password of an `Authorization: Basic` header (RFC 7617)."""
    scheme, _, encoded = (value or "").partition(" ")
    if scheme.lower() != "basic":
        raise _unauthorized("Basic", "send name and password as Authorization: Basic")
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except ValueError:  # not base64, not even ASCII, or not UTF-8
        text = ""
    name, colon, password = text.partition(":")
    if not colon:
        raise _unauthorized("Basic", "the Authorization header is not NAME:PASSWORD in base64")
    return name, password


def _unauthorized(scheme: str, message: str) -> _HttpError:
    challenge = f'{scheme} realm="queuesystem"' + (', charset="UTF-8"' if scheme == "Basic" else "")
    return _HttpError(HTTPStatus.UNAUTHORIZED, message, WWW_Authenticate=challenge)


def _unavailable(message: str) -> _HttpError:
    return _HttpError(HTTPStatus.SERVICE_UNAVAILABLE, message, Retry_After="1")


def _file(request: Request, file: StaticFile) -> Response:
    """Return `file`, only its headers for HEAD, or 304 for who has it (RFC 9110 section 13.1.2)."""
    fields = Headers({"ETag": file.etag, "Connection": "close", **HEADERS})
    known = (_header(request, "If-None-Match") or "").split(",")
    if file.etag in {one.strip().removeprefix("W/") for one in known}:
        status, body = HTTPStatus.NOT_MODIFIED, b""
    else:
        status, body = HTTPStatus.OK, file.body
        fields["Content-Type"] = file.content_type
        fields["Content-Length"] = str(len(body))
    return _without_body_for_head(request, status, fields, body)


def _without_body_for_head(
    request: Request, status: HTTPStatus, fields: Headers, body: bytes
) -> Response:
    return Response(status.value, status.phrase, fields, b"" if request.method == "HEAD" else body)


def _json(
    status: HTTPStatus,
    body: object,
    headers: dict[str, str] | None = None,
    request: Request | None = None,
) -> Response:
    """Return `body` as JSON; only its headers when `request` is one for HEAD."""
    data = msgspec.json.encode(body) + b"\n"
    fields = Headers(
        {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            "Connection": "close",
            "X-Content-Type-Options": "nosniff",
            **(headers or {}),
        }
    )
    if request is not None and request.method == "HEAD":
        data = b""
    return Response(status.value, status.phrase, fields, data)
