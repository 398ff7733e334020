"""What can be a handler, which params it takes, and what clients are told when they do not fit."""

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta, Raw

import server
from protocol.codes import ErrorCode
from server import Handlers, Request, RequestError
from server.handlers import InvalidParams, Method
from server.session import Refused

NO_SCOPES = ""


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


def method_of(function: Callable[..., Any], **options: Any) -> Method:
    handlers = Handlers()
    handlers.method("m", **options)(function)
    method = handlers.get("m")
    assert method is not None
    return method


async def words(request: Request, text: str, limit: int = 10) -> AsyncIterator[str]:
    """Stream the words.

    More about it.
    """
    for word in text.split()[:limit]:
        yield word


def in_process(request: Request) -> None: ...


# Registration


def test_what_a_module_of_handlers_needs_comes_from_server() -> None:
    assert sorted(server.__all__) == ["Handlers", "Request", "RequestError"]


def test_the_decorator_returns_the_function_unchanged(handlers: Handlers) -> None:
    assert handlers.method("words")(words) is words


def test_a_method_without_a_name_has_that_of_its_function(handlers: Handlers) -> None:
    handlers.method()(words)
    assert handlers.names() == ["words"]


def test_an_unknown_name_gets_none(handlers: Handlers) -> None:
    assert handlers.get("words") is None


def test_methods_are_iterated_in_the_order_of_registration(handlers: Handlers) -> None:
    for name in "bca":
        handlers.method(name)(words)
    assert [method.name for method in handlers] == ["b", "c", "a"] == handlers.names()


def test_the_defaults_of_the_options() -> None:
    method = method_of(words)
    assert (method.timeout, method.live, method.scope) == (None, False, None)
    assert (method.replay, method.max_attempts) == ("always", 5)


def test_options_are_kept() -> None:
    method = method_of(
        words, timeout=2.5, live=True, scope="words:read", replay="never", max_attempts=1
    )
    assert (method.timeout, method.live, method.scope) == (2.5, True, "words:read")
    assert (method.replay, method.max_attempts) == ("never", 1)


def test_an_async_generator_is_a_stream() -> None:
    assert method_of(words).kind == "stream"


def test_an_async_function_is_a_coroutine() -> None:
    async def function(request: Request) -> None: ...

    assert method_of(function).kind == "coroutine"


def test_a_plain_function_runs_in_a_thread() -> None:
    def function(request: Request) -> None: ...

    assert method_of(function).kind == "thread"


def test_a_plain_function_with_process_runs_in_a_process() -> None:
    assert method_of(in_process, process=True).kind == "process"


def test_a_bound_method_is_a_handler() -> None:
    class Service:
        async def greet(self, request: Request, name: str) -> str:
            return f"hello {name}"

    assert method_of(Service().greet).decode(b'{"name":"you"}') == ("you",)


async def _async(request: Request) -> None: ...


class _Callable:
    def __call__(self, request: Request) -> None: ...


def _generator(request: Request) -> Iterator[int]:
    yield 1


def _local() -> Callable[[Request], None]:
    def local(request: Request) -> None: ...

    return local


def _nothing() -> None: ...
def _only_star(*requests: Request) -> None: ...
def _only_keyword(*, request: Request) -> None: ...
def _request_forgotten(text: str) -> None: ...
def _star(request: Request, *texts: str) -> None: ...
def _stars(request: Request, **texts: str) -> None: ...
def _keyword_only(request: Request, *, text: str) -> None: ...
def _positional_only(request: Request, text: str, /) -> None: ...
def _shared(request: Request, texts: list[str] = ["a"]) -> None: ...  # noqa: B006 - the point
def _not_json(request: Request, value: _Callable) -> None: ...
def _unresolved(request: Request, value: "Missing") -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("function", "options", "advice"),
    [
        (_Callable(), {}, "decorate a function"),
        (_generator, {}, "make it an `async def`"),
        (_async, {"process": True}, "for a plain `def`"),
        (words, {"process": True}, "for a plain `def`"),
        (_local(), {"process": True}, "finds it by its name"),
        (_nothing, {}, "first parameter must be the request"),
        (_only_star, {}, "first parameter must be the request"),
        (_only_keyword, {}, "first parameter must be the request"),
        (_request_forgotten, {}, "annotate 'text' with server.Request"),
        (_star, {}, r"instead of \*texts"),
        (_stars, {}, r"instead of \*\*texts"),
        (_keyword_only, {}, r"remove the \* before 'text'"),
        (_positional_only, {}, "put the / before 'text'"),
        (_shared, {}, "use an empty one, a tuple or None"),
        (_not_json, {}, "types that JSON can be decoded to"),
        (_unresolved, {}, "'Missing' is not defined: import what its annotations name"),
    ],
)
def test_what_cannot_be_a_handler_is_refused_with_advice(
    function: Callable[..., Any], options: dict[str, Any], advice: str
) -> None:
    with pytest.raises(TypeError, match=advice):
        method_of(function, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": float("nan")},
        {"timeout": 86_401},
        {"timeout": "5"},
        {"scope": ""},
        {"scope": "two scopes"},
        {"replay": "sometimes"},
        {"max_attempts": 0},
        {"max_attempts": 2.5},
        {"live": "yes"},
        {"process": None},
    ],
)
def test_a_bad_option_is_refused_by_name(options: dict[str, Any]) -> None:
    (option,) = options
    with pytest.raises(ValueError, match=f"{option} is .* but must be"):
        method_of(words, **options)


@pytest.mark.parametrize("name", ["", "x" * 129])
def test_a_name_no_request_could_carry_is_refused(handlers: Handlers, name: str) -> None:
    with pytest.raises(ValueError, match="must be 1 to 128 characters"):
        handlers.method(name)(words)


def test_the_decorator_without_parentheses_is_refused(handlers: Handlers) -> None:
    with pytest.raises(TypeError, match=r"write @handlers.method\(\)"):
        handlers.method(words)  # type: ignore[arg-type]


def test_the_message_names_the_function(handlers: Handlers) -> None:
    with pytest.raises(TypeError, match=rf"handler {__name__}._generator: "):
        handlers.method()(_generator)


def test_a_name_is_given_once(handlers: Handlers) -> None:
    handlers.method("words")(words)
    with pytest.raises(ValueError, match=rf"'words' is taken by {__name__}.words"):
        handlers.method("words")(_async)


def test_include_adds_the_methods_of_another_registry(handlers: Handlers) -> None:
    other = Handlers()
    other.method("words")(words)
    handlers.include(other)
    assert handlers.get("words") is other.get("words")


def test_include_adds_nothing_if_one_name_is_taken(handlers: Handlers) -> None:
    other = Handlers()
    other.method("new")(words)
    other.method("taken")(words)
    handlers.method("taken")(_async)
    with pytest.raises(ValueError, match="'taken' is taken"):
        handlers.include(other)
    assert handlers.names() == ["taken"]


# Params


def test_params_become_arguments_in_the_order_of_the_signature() -> None:
    assert method_of(words).decode(b'{"limit":2,"text":"to be"}') == ("to be", 2)


def test_params_may_be_raw_json() -> None:
    assert method_of(words).decode(Raw(b'{"text":"to be"}')) == ("to be", 10)


def test_a_param_without_annotation_takes_anything() -> None:
    def function(request, value):  # type: ignore[no-untyped-def]
        ...

    assert method_of(function).decode(b'{"value":[1,{"a":null}]}') == ([1, {"a": None}],)


def test_an_empty_mutable_default_is_new_for_each_request() -> None:
    def function(request: Request, texts: list[str] = []) -> None: ...  # noqa: B006 - the point

    method = method_of(function)
    method.decode(b"{}")[0].append("a")
    assert method.decode(b"{}") == ([],)


class Point(msgspec.Struct):
    x: int
    y: int = 0


def test_params_are_decoded_to_the_annotated_types() -> None:
    def function(request: Request, points: "list[Point]") -> None: ...

    assert method_of(function).decode(b'{"points":[{"x":1}]}') == ([Point(1, 0)],)


def bounded(
    request: Request, text: str, ratio: Annotated[float, Meta(ge=0, le=1)] = 0, deep: Any = None
) -> None: ...


@pytest.mark.parametrize(
    ("params", "named"),
    [
        (b"{}", "missing required field `text`"),
        (b'{"text":1}', r"Expected `str`, got `int` - at `\$\.text`"),
        (b'{"text":null}', r"at `\$\.text`"),
        (b'{"text":"a","ratio":1.5}', r"<= 1.0 - at `\$\.ratio`"),
        (b'{"text":"a","ratio":"1"}', r"at `\$\.ratio`"),
        (b'{"text":"a","txt":1}', "unknown field `txt`"),
        (b"[]", "Expected `object`, got `array`"),
        (b"null", "Expected `object`, got `null`"),
        (b'"text"', "Expected `object`, got `str`"),
        (b"", "truncated"),
        (b'{"text":', "truncated"),
        (b'{"text":"\xff"}', "utf-8"),
        (b'{"deep":' + b"[" * 100_000, "recursion"),
    ],
)
def test_params_that_do_not_fit_are_refused_with_the_field(params: bytes, named: str) -> None:
    with pytest.raises(InvalidParams, match=named):
        method_of(bounded).decode(params)


def test_the_refusal_says_which_params_there_are() -> None:
    with pytest.raises(InvalidParams, match=r"\(params: text, limit \(optional\)\)"):
        method_of(words).decode(b"{}")


def test_a_method_describes_itself_in_json() -> None:
    description = method_of(words, scope="words:read", timeout=5).describe()
    assert msgspec.json.decode(msgspec.json.encode(description)) == description
    assert (description["name"], description["summary"]) == ("m", "Stream the words.")
    assert (description["stream"], description["scope"], description["timeout"]) == (
        True,
        "words:read",
        5,
    )
    params = description["params"]["$defs"]["Params"]
    assert params["required"] == ["text"]
    assert params["properties"]["limit"] == {"type": "integer", "default": 10}


# What the session rules ask


def refusal(handlers: Handlers, method: str, params: bytes = b"{}") -> Refused:
    with pytest.raises(Refused) as caught:
        handlers.check(method, params, NO_SCOPES)
    return caught.value


def test_check_returns_the_method_and_its_arguments(handlers: Handlers) -> None:
    handlers.method("words")(words)
    assert handlers.check("words", Raw(b'{"text":"a"}'), NO_SCOPES) == (
        handlers.get("words"),
        ("a", 10),
    )


def test_an_unknown_method_is_refused_with_those_that_exist(handlers: Handlers) -> None:
    handlers.method("words")(words)
    handlers.method("other")(words)
    refused = refusal(handlers, "nothing")
    assert refused.code is ErrorCode.UNKNOWN_METHOD
    assert str(refused) == "no method 'nothing': there are words, other"


def test_a_close_match_is_suggested(handlers: Handlers) -> None:
    handlers.method("words")(words)
    assert "did you mean 'words'?" in str(refusal(handlers, "wrods"))


def test_at_most_twenty_methods_are_named(handlers: Handlers) -> None:
    for number in range(25):
        handlers.method(f"method{number}")(words)
    message = str(refusal(handlers, "zzz"))
    assert "method19 and 5 more" in message
    assert "method20" not in message


def test_a_server_without_methods_says_so(handlers: Handlers) -> None:
    assert str(refusal(handlers, "words")) == "no method 'words': this server has no methods"


def test_without_its_scope_a_method_is_forbidden(handlers: Handlers) -> None:
    handlers.method("words", scope="words:read")(words)
    refused = refusal(handlers, "words", b'{"text":"a"}')
    assert refused.code is ErrorCode.FORBIDDEN
    assert "'words:read'" in str(refused)


def test_with_its_scope_a_method_may_be_called(handlers: Handlers) -> None:
    handlers.method("words", scope="words:read")(words)
    handlers.check("words", b'{"text":"a"}', "more words:read")


def test_who_may_not_call_a_method_does_not_learn_its_params(handlers: Handlers) -> None:
    handlers.method("words", scope="words:read")(words)
    assert refusal(handlers, "words", b"[]").code is ErrorCode.FORBIDDEN


def test_params_that_do_not_fit_are_refused_with_method_and_field(handlers: Handlers) -> None:
    handlers.method("words")(words)
    refused = refusal(handlers, "words", b'{"text":1}')
    assert refused.code is ErrorCode.INVALID_PARAMS
    assert "'words'" in str(refused)
    assert "$.text" in str(refused)


# Request and RequestError


def test_the_idempotency_key_is_session_and_number() -> None:
    request = Request("s", 3, "a", "words", "alice", frozenset(), 2)
    assert request.idempotency_key == "s:3"


class NotFoundError(RequestError):
    """Takes other arguments than its base."""

    def __init__(self, what: str) -> None:
        super().__init__("not_found", f"no {what}", {"what": what}, retryable=True)


def test_a_request_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(NotFoundError("book")))  # noqa: S301 - our own
    assert type(error) is NotFoundError
    assert (error.code, error.message, error.details, error.retryable) == (
        "not_found",
        "no book",
        {"what": "book"},
        True,
    )
    assert str(error) == "not_found: no book"


def test_a_request_error_is_not_retryable_unless_it_says_so() -> None:
    assert not RequestError("gone", "it is gone").retryable


@pytest.mark.parametrize("code", ["", "Gone", "1st", "a b", "x" * 65, "gone\n", "done"])
def test_a_code_that_cannot_be_sent_is_refused(code: str) -> None:
    with pytest.raises(ValueError, match="cannot be the code"):
        RequestError(code, "text")


async def test_a_registered_function_can_still_be_called(handlers: Handlers) -> None:
    @handlers.method()
    async def double(request: Request, value: int) -> int:
        await asyncio.sleep(0)
        return 2 * value

    assert await double(Request("s", 1, "a", "double", "alice", frozenset(), 1), 2) == 4
