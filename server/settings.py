"""Every setting of the server: type, default, bounds, meaning. The first source that has it wins:

    flag --window  >  environment QUEUESYSTEM_WINDOW  >  the same in .env  >  default

An empty value in any source counts as not given.
"""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast, get_type_hints

import msgspec
from dotenv import dotenv_values
from msgspec import Meta, Struct

PREFIX: Final = "QUEUESYSTEM_"
TOKEN_NAME: Final = "QUEUESYSTEM_TOKEN"  # noqa: S105 - the name of a variable
"""Not a setting of the server: the token of `queuesystem send`."""

_Host = Annotated[str, Meta(min_length=1)]
_Port = Annotated[int, Meta(ge=0, le=65_535)]
_Pid = Annotated[int, Meta(ge=1, le=2**22)]
_Count = Annotated[int, Meta(ge=1, le=10_000_000)]
_Bytes = Annotated[int, Meta(ge=1024, le=2**40, extra={"unit": "bytes"})]
_Seconds = Annotated[float, Meta(gt=0, le=86_400, extra={"unit": "seconds"})]
_LongSeconds = Annotated[float, Meta(gt=0, le=315_360_000, extra={"unit": "seconds"})]
_Secret = Annotated[str, Meta(min_length=32)]
_Handlers = Annotated[str, Meta(pattern=r"^[\w.]+:[\w.]+$", extra={"allowed": "MODULE:NAME"})]
_Journal = Annotated[
    str,
    Meta(
        pattern=r"^(sqlite:///|mongodb(\+srv)?://).+$",
        extra={"allowed": "sqlite:///PATH or mongodb://HOST/DATABASE"},
    ),
]


class SettingsError(Exception):
    """A setting that cannot be used; the text names it, its source and what is allowed."""


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the server runs with. Times in seconds, sizes in bytes; secrets are not in the repr."""

    # Where it listens
    host: Annotated[_Host, Meta(description="address to listen on")] = "127.0.0.1"
    port: Annotated[_Port, Meta(description="port of the WebSocket; 0 takes a free one")] = 8765
    replace: Annotated[
        _Pid | None, Meta(description="process id of the running server that this one replaces")
    ] = None
    admin_host: Annotated[_Host, Meta(description="address of the admin port")] = "127.0.0.1"
    admin_port: Annotated[_Port, Meta(description="port of /metrics; 0 takes a free one")] = 9465

    console: Annotated[
        Literal["on", "off"], Meta(description="whether the web console is served at /")
    ] = "on"

    # What it runs, and where it keeps it
    journal: Annotated[
        _Journal, Meta(description="store of requests, results and users: sqlite or mongodb URL")
    ] = "sqlite:///queuesystem.db"
    handlers: Annotated[
        _Handlers, Meta(description="the methods clients may call, as MODULE:NAME")
    ] = "server.demo:handlers"

    # Who may connect
    jwt_secret: Annotated[
        _Secret | None,
        Meta(
            description="secret that signs and checks tokens (HS256), at least 32 characters",
            extra={"secret": True},
        ),
    ] = None
    jwt_public_key: Annotated[
        tuple[str, ...],
        Meta(description="PEM files with public keys that check tokens, comma separated"),
    ] = ()
    jwt_jwks_url: Annotated[
        str | None, Meta(description="URL of the key set (JWKS) that checks tokens")
    ] = None
    jwt_audience: Annotated[
        str | None, Meta(description="audience (`aud`) that tokens must have")
    ] = None
    jwt_issuer: Annotated[str | None, Meta(description="issuer (`iss`) that tokens must have")] = (
        None
    )
    jwt_leeway: Annotated[
        float,
        Meta(
            ge=0,
            le=300,
            description="clock difference tolerated in the times of a token",
            extra={"unit": "seconds"},
        ),
    ] = 5
    token_ttl: Annotated[_LongSeconds, Meta(description="life of the tokens it issues")] = 3600
    origins: Annotated[
        tuple[str, ...],
        Meta(description="web origins whose pages may connect, comma separated"),
    ] = ()
    trusted_proxies: Annotated[
        tuple[str, ...],
        Meta(
            description="networks of proxies whose X-Forwarded-For tells the client's address, "
            "comma separated"
        ),
    ] = ()

    # Limits
    window: Annotated[
        int, Meta(ge=1, le=10_000, description="unfinished requests a session may have")
    ] = 64
    max_message_bytes: Annotated[
        int,
        Meta(
            ge=1024,
            le=64 * 2**20,
            description="largest message a client may send",
            extra={"unit": "bytes"},
        ),
    ] = 2**20
    max_params_bytes: Annotated[
        Annotated[int, Meta(ge=2, le=64 * 2**20, extra={"unit": "bytes"})] | None,
        Meta(description="largest params a request may have, in bytes; none: as a message may"),
    ] = None
    requests_per_second: Annotated[
        _Count,
        Meta(
            description="requests a session may send in a second, on average; as many, or a "
            "window, at once"
        ),
    ] = 50_000
    max_unfinished: Annotated[
        _Count,
        Meta(
            description="unfinished requests of all sessions; one subject may have two thirds of "
            "what is free"
        ),
    ] = 100_000
    max_result_bytes: Annotated[
        _Bytes, Meta(description="unacknowledged results a session may have")
    ] = 16 * 2**20
    max_unacked: Annotated[
        _Count, Meta(description="ended requests kept until acknowledged, per session")
    ] = 1024
    outbox_bytes: Annotated[
        _Bytes,
        Meta(description="output a connection may have waiting before its handler has to wait"),
    ] = 256 * 2**10
    result_memory_bytes: Annotated[
        _Bytes,
        Meta(description="requests and unacknowledged results of all sessions in memory"),
    ] = 256 * 2**20
    memory_high_water_bytes: Annotated[
        int,
        Meta(
            ge=0,
            le=2**50,
            description="memory of the process above which requests are refused; 0 takes 80 % of "
            "the machine's, or of its control group's if that is less",
            extra={"unit": "bytes"},
        ),
    ] = 0
    checkpoint_bytes: Annotated[
        _Bytes, Meta(description="growth of the journal until the next checkpoint")
    ] = 16 * 2**20
    max_sessions: Annotated[_Count, Meta(description="sessions, connected or not")] = 100_000
    max_sessions_per_subject: Annotated[
        _Count, Meta(description="sessions of one subject, connected or not")
    ] = 10_000
    max_connections: Annotated[_Count, Meta(description="connections at one time")] = 20_000
    max_connections_per_subject: Annotated[
        _Count, Meta(description="connections of one subject at one time")
    ] = 10_000
    max_connections_per_address: Annotated[
        _Count,
        Meta(description="connections from one IPv4 address, or one IPv6 /64, at one time"),
    ] = 15_000
    handshakes_per_second: Annotated[
        _Count,
        Meta(description="WebSocket handshakes in a second, on average; ten times as many at once"),
    ] = 1000

    # Times
    auth_timeout: Annotated[
        _Seconds, Meta(description="time a new connection has to authenticate")
    ] = 10
    request_timeout: Annotated[
        _Seconds, Meta(description="time a request may run when neither it nor its method says")
    ] = 300
    slow_consumer_timeout: Annotated[
        _Seconds, Meta(description="time a client may read nothing before it is disconnected")
    ] = 30
    drain_timeout: Annotated[
        _Seconds, Meta(description="time running requests get to finish at shutdown")
    ] = 30
    session_ttl: Annotated[
        _LongSeconds, Meta(description="time a session waits for its client to come back")
    ] = 86_400
    result_ttl: Annotated[
        _LongSeconds, Meta(description="time results wait to be acknowledged")
    ] = 86_400
    history_ttl: Annotated[
        _LongSeconds, Meta(description="time finished requests stay in the request log")
    ] = 604_800

    # Logs
    log_format: Annotated[
        Literal["auto", "json", "console"],
        Meta(description="form of the log; auto is console on a terminal and json elsewhere"),
    ] = "auto"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="least important lines to log"),
    ] = "info"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return names and values without secrets."""
        return [(one.name, one.hide(getattr(self, one.name))) for one in _SETTINGS]

    def __repr__(self) -> str:
        """Show every value but the secrets."""
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


class SettingRow(Struct, frozen=True):
    """One setting as a table of the documentation shows it; `default` is empty for none."""

    name: str
    env: str
    flag: str
    default: str
    help: str


def load(
    arguments: Mapping[str, str | None], environ: Mapping[str, str], dotenv: Mapping[str, str]
) -> Settings:
    """Make the settings of flags (by setting name), environment variables and `.env` entries.

    Raises SettingsError for a value out of bounds, and for a QUEUESYSTEM_ name that is no setting:
    a misspelt limit must not be a limit that does not hold.
    """
    _refuse_unknown(environ, "the environment")
    _refuse_unknown(dotenv, ".env")
    values: dict[str, object] = {}
    for setting in _SETTINGS:
        if text := arguments.get(setting.name):
            values[setting.name] = setting.parse(text, setting.flag)
        elif text := environ.get(setting.env):
            values[setting.name] = setting.parse(text, f"{setting.env} in the environment")
        elif text := dotenv.get(setting.env):
            values[setting.name] = setting.parse(text, f"{setting.env} in .env")
    return msgspec.convert(values, Settings)


def read_dotenv(path: Path) -> dict[str, str]:
    """Return the entries of a `.env` file, {} when there is none; values are taken literally.

    Raises SettingsError when the file cannot be read.
    """
    try:
        entries = dotenv_values(path, interpolate=False, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read {path}: {error}") from error
    return {name: value for name, value in entries.items() if value is not None}


def read_settings(arguments: Mapping[str, str | None]) -> Settings:
    """Load the settings of this process: flags, its environment, `.env` in its directory."""
    return load(arguments, os.environ, read_dotenv(Path(".env")))


def settings_table() -> list[SettingRow]:
    """Return every setting, in the order of their declaration."""
    return [
        SettingRow(
            name=setting.name,
            env=setting.env,
            flag=setting.flag,
            default=_plain(setting.default),
            help=f"{setting.help}, in {setting.unit}" if setting.unit else setting.help,
        )
        for setting in _SETTINGS
    ]


class _Setting:
    """One field of Settings, with what its annotation says about it."""

    def __init__(self, field: msgspec.inspect.Field, annotation: object) -> None:
        extra: dict[str, Any] = {}
        schema: dict[str, Any] = {}
        kind = field.type
        while isinstance(kind, msgspec.inspect.Metadata):
            extra |= cast("dict[str, Any]", kind.extra or {})
            schema |= cast("dict[str, Any]", kind.extra_json_schema or {})
            kind = kind.type
        self.name = field.name
        self.env = PREFIX + field.name.upper()
        self.flag = "--" + field.name.replace("_", "-")
        self.default: object = field.default
        self.help = str(schema["description"])
        self.unit = str(extra.get("unit", ""))
        self._secret = bool(extra.get("secret", False))
        self._annotation = annotation
        self._is_list = isinstance(kind, msgspec.inspect.VarTupleType)
        self._allowed = str(extra.get("allowed", "")) or _allowed(kind, self.unit)

    def parse(self, text: str, label: str) -> object:
        """Turn text into the setting's type; `label` says where the text came from."""
        value = [part.strip() for part in text.split(",") if part.strip()]
        try:
            return msgspec.convert(
                value if self._is_list else text,
                self._annotation,
                strict=False,  # text becomes numbers
            )
        except msgspec.ValidationError:
            shown = "a value not shown here" if self._secret else f'"{self.hide(text)}"'
            # Not chained: the cause of a secret's error could quote the secret.
            raise SettingsError(f"{label} is {shown} but must be {self._allowed}") from None

    def hide(self, value: object) -> object:
        """Return the value without what must not be shown: secrets, passwords in URLs."""
        if self._secret and value is not None:
            return "***"
        if isinstance(value, str) and "://" in value and "@" in value:
            return f"{value.partition('://')[0]}://***@{value.rpartition('@')[2]}"
        return value


def _allowed(kind: msgspec.inspect.Type, unit: str) -> str:
    if isinstance(kind, msgspec.inspect.Metadata):
        extra = cast("dict[str, Any]", cast("Any", kind).extra or {})
        return _allowed(kind.type, str(extra.get("unit", unit)))
    if isinstance(kind, msgspec.inspect.UnionType):
        return " or ".join(
            _allowed(one, unit)
            for one in kind.types
            if not isinstance(one, msgspec.inspect.NoneType)
        )
    if isinstance(kind, msgspec.inspect.IntType):
        return f"a whole number from {kind.ge} to {kind.le}" + (f" ({unit})" if unit else "")
    if isinstance(kind, msgspec.inspect.FloatType):
        least = f"from {kind.ge:g}" if kind.ge is not None else f"above {kind.gt:g}, up"
        return f"a number {least} to {_plain(kind.le)} ({unit})"
    if isinstance(kind, msgspec.inspect.LiteralType):
        return f"one of {', '.join(map(str, kind.values))}"
    if isinstance(kind, msgspec.inspect.StrType) and kind.min_length is not None:
        return f"at least {kind.min_length} characters"
    return "text"


def _plain(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.15g}"
    return ",".join(cast("tuple[str, ...]", value)) if isinstance(value, tuple) else str(value)


def _refuse_unknown(names: Mapping[str, str], source: str) -> None:
    for name in names:
        if name.startswith(PREFIX) and name not in _KNOWN:
            close = difflib.get_close_matches(name, _KNOWN, n=1, cutoff=0)
            raise SettingsError(f"{name} in {source} is no setting; did you mean {close[0]}?")


def _read_declarations() -> tuple[_Setting, ...]:
    info = cast("msgspec.inspect.StructType", msgspec.inspect.type_info(Settings))
    annotations = get_type_hints(Settings, include_extras=True)
    return tuple(_Setting(field, annotations[field.name]) for field in info.fields)


_SETTINGS: Final = _read_declarations()
_KNOWN: Final = [TOKEN_NAME, *(setting.env for setting in _SETTINGS)]
