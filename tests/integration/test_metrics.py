"""The admin port of a real server: each metric says what has happened."""

import asyncio
import gzip
import urllib.request
from collections.abc import Callable
from http.client import HTTPResponse
from pathlib import Path

import pytest

from server.counts import OUTCOMES
from server.metrics import metrics_table
from tests.metrics import PROMTOOL, Scrape, exposition, linted
from tests.raw import online, raw
from tests.server_process import ServerProcess, token

METHODS = ("echo", "words", "fail", "endless")


def get(url: str, method: str = "GET", **headers: str) -> HTTPResponse:
    request = urllib.request.Request(url, method=method, headers=headers)  # noqa: S310
    response = urllib.request.urlopen(request, timeout=30)  # noqa: S310
    assert isinstance(response, HTTPResponse)
    return response


async def until(server: ServerProcess, holds: Callable[[Scrape], bool]) -> Scrape:
    """Scrape until that holds (the test's own timeout ends it)."""
    while not holds(scrape := await asyncio.to_thread(Scrape, server)):
        await asyncio.sleep(0.02)
    return scrape


# The port


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;version=1.0.0", "application/openmetrics-text"),
        ("application/openmetrics-text;version=x", "text/plain; version=0.0.4"),
    ],
)
def test_the_format_is_that_of_the_accept_header(
    server: ServerProcess, accept: str, content_type: str
) -> None:
    with get(f"{server.admin}/metrics", Accept=accept) as response:
        assert response.headers["Content-Type"].startswith(content_type)
        assert b"queuesystem_ready 1.0" in response.read()


def test_metrics_are_compressed_for_who_takes_it(server: ServerProcess) -> None:
    with get(f"{server.admin}/metrics", **{"Accept-Encoding": "gzip"}) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        assert b"queuesystem_ready 1.0" in gzip.decompress(response.read())


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/readyz"])
def test_head_has_the_headers_of_get_and_no_body(server: ServerProcess, path: str) -> None:
    with get(f"{server.admin}{path}", "HEAD") as response:
        assert (response.status, response.read()) == (200, b"")
        assert int(response.headers["Content-Length"]) > 0


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/readyz"])
def test_other_methods_are_not_allowed(server: ServerProcess, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(f"{server.admin}{path}", "POST")
    refused.value.close()
    assert (refused.value.code, refused.value.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("setting", ["port", "admin_port"])
def test_a_port_that_is_taken_stops_the_start_and_names_its_setting(
    server: ServerProcess, tmp_path: Path, setting: str
) -> None:
    other = ServerProcess(tmp_path, **{setting: server.port})
    other.spawn()
    assert other.process is not None
    assert other.process.wait(30) == 1
    assert f"QUEUESYSTEM_{setting.upper()}" in other.log.read_text()


# What has happened


async def test_metrics_say_what_became_of_requests(own_server: ServerProcess) -> None:
    own_server.start()
    async with online(own_server.url) as client:
        for number in range(3):
            await client.request(f"e{number}", params={"text": "x"})
        await client.next("done", "e2")
        await client.request("e2", params={"text": "x"})
        await client.next("accepted", "e2")
        await client.request("w", "words", params={"text": "a b"})
        await client.next("done", "w")
        await client.request("f", "fail", params={"message": "no"})
        await client.next("error", "f")
        await client.request("u", "nothing")
        await client.next("error", "u")
        await client.request("r", "endless")
        await client.request("waits", params={"text": "x"})
        await client.next("accepted", "waits")
        scrape = await until(own_server, lambda s: s("oldest_request_age_seconds") > 0)
        assert (scrape("requests_running"), scrape("requests_waiting")) == (1, 1)
        await client.send({"type": "cancel", "id": "r"})
        await client.next("done", "waits")
        scrape = await until(own_server, lambda s: s("oldest_request_age_seconds") == 0)
    ended = {
        (method, str(outcome)): count
        for method in METHODS
        for outcome in OUTCOMES
        if (count := scrape("requests_ended_total", method=method, outcome=str(outcome)))
    }
    assert ended == {
        ("echo", "done"): 4,
        ("words", "done"): 1,
        ("fail", "request_error"): 1,
        ("endless", "cancelled"): 1,
    }
    accepted = {m: scrape("requests_accepted_total", method=m) for m in METHODS}
    assert accepted == {"echo": 4, "words": 1, "fail": 1, "endless": 1}
    handled = {m: scrape("handler_seconds_count", method=m) for m in METHODS}
    assert handled == accepted
    assert scrape("requests_repeated_total") == 1
    assert scrape("requests_refused_total", code="unknown_method") == 1
    assert scrape("request_wait_seconds_count") == 7
    assert scrape("results_total") == 6
    assert scrape("result_bytes_total") == 6 * len('"x"')
    assert (scrape("requests_running"), scrape("requests_waiting")) == (0, 0)
    assert scrape("journal_commits_total") == scrape("journal_commit_seconds_count") > 0
    assert scrape("journal_available") == 1


async def test_metrics_say_what_became_of_connections(own_server: ServerProcess) -> None:
    own_server.settings |= {"max_sessions_per_subject": 1}
    own_server.start()
    async with raw(own_server.url) as client:
        await client.send({"type": "hello", "token": token(ttl_seconds=-60)})
        await client.closed()
    async with raw(own_server.url) as client:
        await client.send({"type": "hello"})
        await client.closed()
    async with raw(own_server.url) as first:
        session = (await first.hello())["session"]
        async with raw(own_server.url) as refused:
            await refused.send({"type": "hello", "token": token()})
            await refused.closed()
        async with raw(own_server.url) as second:
            await second.hello(session=session)
            scrape = await until(
                own_server, lambda s: s("connections_closed_total", code="4509") == 1
            )
            assert scrape("sessions", state="online") == scrape("connections") == 1
            await second.send({"type": "bye"})
            await second.closed()
    scrape = await until(own_server, lambda s: s("sockets") == 0)
    assert scrape("auth_failures_total", reason="expired") == 1
    assert scrape("auth_failures_total", reason="missing") == 1
    assert scrape("connections_rejected_total", reason="sessions_per_subject") == 1
    assert scrape("handshakes_total", outcome="welcomed") == 2
    assert scrape("handshakes_total", outcome="refused") == 3
    assert scrape("resumes_total", outcome="new_epoch") == 1
    assert scrape("takeovers_total") == 1
    assert scrape("sessions_opened_total") == scrape("sessions_ended_total", reason="bye") == 1
    closed = {code: scrape("connections_closed_total", code=code) for code in ("1000", "4401")}
    assert closed == {"1000": 1, "4401": 1}
    assert scrape("sessions", state="offline") == 0


async def test_metrics_say_what_a_crash_left(own_server: ServerProcess, tmp_path: Path) -> None:
    own_server.start()
    gate = tmp_path / "gate"
    async with online(own_server.url) as client:
        params = {"path": str(tmp_path / "ran"), "gate": str(gate)}
        await client.request("a", "append", params=params)
        await client.request("b", params={"text": "x"})
        await client.next("accepted", "b")
        while not (tmp_path / "ran").exists():
            await asyncio.sleep(0.01)
    await own_server.restart()
    scrape = await until(own_server, lambda s: s("recovered_sessions") == 1)
    assert scrape("recovered_requests") == 2
    assert scrape("recovery_seconds") > 0
    assert scrape("requests_running") + scrape("requests_waiting") == 2
    gate.touch()
    scrape = await until(own_server, lambda s: s("requests_running") + s("requests_waiting") == 0)
    assert scrape("requests_replayed_total") >= 1
    assert scrape("unready", reason="journal_unavailable") == 0


# Prometheus' own judgement


@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool (Debian: apt install prometheus)")
def test_promtool_finds_nothing_to_say(server: ServerProcess) -> None:
    text = exposition(server)
    assert linted(text) == ""
    for row in metrics_table():
        assert f"# HELP {row.name} " in text
