"""A handler's signature as the type of its params: built once, decoded on every request.

async def words(request: Request, text: str, limit: int = 10)
{"text": "to be or not", "limit": 2}  ->  ("to be or not", 2)
"""

import inspect
import typing
from collections.abc import Callable
from inspect import Parameter
from typing import Any, Final

import msgspec
from msgspec import NODEFAULT, Raw
from msgspec.structs import astuple

from protocol.codec import shorten
from server.request import Request

_UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_REQUEST: Final = {Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD}
_MUTABLE: Final = {list, dict, set, bytearray}
_NO_PARAMS: Final = {
    Parameter.VAR_POSITIONAL: "name each param instead of *{}",
    Parameter.VAR_KEYWORD: "name each param instead of **{}",
    Parameter.POSITIONAL_ONLY: "put the / before {!r}: params are given by name",
    Parameter.KEYWORD_ONLY: "remove the * before {!r}: params are given by name anyway",
}


class InvalidParams(ValueError):
    """Params that do not fit the method; the text names the field and what was expected."""


class Params:
    """The params of one handler. `schema` is their JSON Schema (2020-12).

    Raises TypeError for a signature that params cannot be made for; the text says what to do.
    """

    __slots__ = ("_decode", "_usage", "schema")

    def __init__(self, function: Callable[..., Any]) -> None:
        fields = _fields(function)
        struct = msgspec.defstruct(
            "Params",
            [
                (name, kind) if value is NODEFAULT else (name, kind, value)
                for name, kind, value in fields
            ],
            kw_only=True,
            forbid_unknown_fields=True,
            module=function.__module__,
        )
        self.schema = _schema(struct)
        self._decode: Callable[[bytes | Raw], msgspec.Struct] = msgspec.json.Decoder(struct).decode
        self._usage = ", ".join(
            name if value is NODEFAULT else f"{name} (optional)" for name, _, value in fields
        )

    def decode(self, params: bytes | Raw) -> tuple[Any, ...]:
        """Return the handler's arguments after the request, in the order of its signature.

        `params` is JSON text and must be an object. Raises InvalidParams.
        """
        try:
            return astuple(self._decode(params))
        except _UNDECODABLE as error:
            usage = self._usage or "none"
            raise InvalidParams(f"{shorten(str(error))} (params: {usage})") from None


def _fields(function: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    """Return name, type and default (or NODEFAULT) of each param."""
    hints = _hints(function)
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters or parameters[0].kind not in _REQUEST:
        raise TypeError("its first parameter must be the request")
    request, *params = parameters
    if hints.get(request.name, Any) not in {Request, Any}:
        raise TypeError(
            f"its first parameter must be the request: annotate {request.name!r} with "
            "server.Request, or put a parameter for the request before it"
        )
    return [_field(param, hints.get(param.name, Any)) for param in params]


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise TypeError(
            f"{error}: import what its annotations name at run time, at the module's top level "
            "(not under TYPE_CHECKING)"
        ) from error


def _field(param: Parameter, kind: Any) -> tuple[str, Any, Any]:
    advice = _NO_PARAMS.get(param.kind)
    if advice is not None:
        raise TypeError(advice.format(param.name))
    default: Any = param.default
    if default is Parameter.empty:
        return param.name, kind, NODEFAULT
    if type(default) in _MUTABLE and default:
        raise TypeError(
            f"the default of {param.name!r} would be shared by all requests: "
            "use an empty one, a tuple or None"
        )
    return param.name, kind, default


def _schema(struct: type[msgspec.Struct]) -> dict[str, Any]:
    try:
        return msgspec.json.schema(struct)
    except TypeError as error:
        # What has no schema could not be decoded either; better to hear of it now.
        reason = " ".join(str(error).split())
        raise TypeError(
            "annotate its params with types that JSON can be decoded to: numbers, str, bool, "
            f"lists, dicts, dataclasses, msgspec Structs, ... ({reason})"
        ) from error
