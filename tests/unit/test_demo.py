"""The demo methods, called as the server calls them: decoded params, then the function."""

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from server import Request, RequestError
from server.demo import handlers
from server.handlers import InvalidParams, Method

REQUEST = Request("s", 1, "a", "m", "alice", frozenset(), attempt=2)


def method_of(name: str) -> Method:
    method = handlers.get(name)
    assert method is not None
    return method


async def one(name: str, params: bytes) -> Any:
    method = method_of(name)
    return await method.function(REQUEST, *method.decode(params))


async def stream(name: str, params: bytes) -> list[Any]:
    method = method_of(name)
    items: AsyncIterator[Any] = method.function(REQUEST, *method.decode(params))
    return [item async for item in items]


def test_these_are_the_demo_methods() -> None:
    assert {method.name: method.kind for method in handlers} == {
        "echo": "coroutine",
        "words": "stream",
        "wordcount": "stream",
        "sleep": "coroutine",
        "fail": "coroutine",
        "sha256": "process",
    }


@pytest.mark.parametrize("name", handlers.names())
def test_each_has_a_summary(name: str) -> None:
    assert method_of(name).describe()["summary"].endswith(".")


async def test_echo_returns_its_text() -> None:
    assert await one("echo", b'{"text":"hi"}') == "hi"


async def test_echo_takes_any_json() -> None:
    assert await one("echo", b'{"text":[1,null]}') == [1, None]


async def test_words_streams_the_words() -> None:
    assert await stream("words", b'{"text":" to be\\nor "}') == ["to", "be", "or"]


async def test_words_of_nothing_streams_nothing() -> None:
    assert await stream("words", b'{"text":""}') == []


@pytest.mark.parametrize(
    ("count", "partial"), [(0, []), (9, []), (10, [10]), (23, [10, 20]), (30, [10, 20, 30])]
)
async def test_wordcount_streams_partial_counts_then_the_total(
    count: int, partial: list[int]
) -> None:
    text = " ".join(["word"] * count)
    assert await stream("wordcount", b'{"text":"%s"}' % text.encode()) == [
        *({"words": words} for words in partial),
        {"words": count, "total": True},
    ]


async def test_sleep_returns_the_seconds() -> None:
    assert await one("sleep", b'{"seconds":0.001}') == 0.001


def test_sleep_may_take_as_long_as_it_may_be_asked_for() -> None:
    timeout = method_of("sleep").timeout
    assert timeout is not None
    assert timeout > 3600


async def test_fail_ends_with_its_own_code_and_message() -> None:
    with pytest.raises(RequestError) as caught:
        await one("fail", b'{"code":"no_luck","message":"not today"}')
    assert (caught.value.code, caught.value.message) == ("no_luck", "not today")


async def test_fail_has_a_code_and_message_of_its_own() -> None:
    with pytest.raises(
        RequestError, match="demo_failure: this request was asked to fail"
    ) as caught:
        await one("fail", b"{}")
    assert caught.value.details == {"attempt": 2}


async def test_fail_with_crash_raises_another_exception() -> None:
    with pytest.raises(RuntimeError, match="a secret"):
        await one("fail", b'{"crash":true,"message":"a secret"}')


@pytest.mark.parametrize("rounds", [1, 3])
def test_sha256_hashes_the_hash_for_each_further_round(rounds: int) -> None:
    expected = "héllo".encode()
    for _ in range(rounds):
        expected = hashlib.sha256(expected).digest()
    method = method_of("sha256")
    arguments = method.decode('{"text":"héllo","rounds":%d}'.encode() % rounds)
    assert method.function(REQUEST, *arguments) == expected.hex()


@pytest.mark.parametrize(
    ("name", "params", "field"),
    [
        ("words", b'{"text":"a","delay":-1}', "delay"),
        ("words", b'{"text":"a","delay":11}', "delay"),
        ("wordcount", b'{"text":"a","delay":11}', "delay"),
        ("sleep", b'{"seconds":-1}', "seconds"),
        ("sleep", b'{"seconds":3601}', "seconds"),
        ("fail", b'{"code":"Bad Code"}', "code"),
        ("fail", b'{"code":"done"}', "code"),
        ("sha256", b'{"text":"a","rounds":0}', "rounds"),
        ("sha256", b'{"text":"a","rounds":10000001}', "rounds"),
    ],
)
def test_params_have_bounds(name: str, params: bytes, field: str) -> None:
    with pytest.raises(InvalidParams, match=rf"\$\.{field}"):
        method_of(name).decode(params)
