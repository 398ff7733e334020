"""Which web pages may open a connection."""

import pytest

from server.origins import Origins

LISTED = Origins(["https://app.example", "http://localhost:3000", "capacitor://localhost"])
HOST = "queue.example"


def test_a_program_sends_no_origin_and_is_allowed():
    assert Origins([]).allows(None, HOST)


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example",
        "HTTPS://App.Example",
        "https://app.example:443",
        "http://localhost:3000",
        "capacitor://localhost",
    ],
)
def test_a_listed_origin_is_allowed(origin: str):
    assert LISTED.allows(origin, HOST)


@pytest.mark.parametrize(
    "origin",
    [
        "http://app.example",
        "https://app.example:8443",
        "https://app.example.evil.example",
        "https://evil.example",
        "https://sub.app.example",
        "http://localhost",
        "http://localhost:30000",
    ],
)
def test_another_scheme_host_or_port_is_refused(origin: str):
    assert not LISTED.allows(origin, HOST)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://127.0.0.1:8765", "127.0.0.1:8765"),
        ("https://queue.example", "queue.example"),
        ("https://queue.example", "QUEUE.example:443"),
        ("http://queue.example:80", "queue.example"),
        ("http://[::1]:8765", "[::1]:8765"),
    ],
)
def test_a_page_of_this_server_is_allowed(origin: str, host: str):
    assert Origins([]).allows(origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://127.0.0.1:3000", "127.0.0.1:8765"),
        ("https://queue.example", "queue.example:8765"),
        ("https://queue.example", None),
        ("https://queue.example", ""),
        ("https://evil.example", "evil.example@queue.example"),
        ("capacitor://queue.example", "queue.example"),
    ],
)
def test_a_page_from_elsewhere_is_not_of_this_server(origin: str, host: str | None):
    assert not Origins([]).allows(origin, host)


def test_null_is_refused():
    assert not LISTED.allows("null", "null")


def test_null_is_allowed_when_listed():
    assert Origins(["null"]).allows("null", HOST)


@pytest.mark.parametrize("origin", ["https://any.example", "null", "garbage"])
def test_a_star_allows_every_origin(origin: str):
    assert Origins(["*"]).allows(origin, HOST)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "garbage",
        "https://",
        "https://app.example/",
        "https://app.example https://evil.example",
        "https://user@app.example",
        "https://app.example:99999",
        "https://app.example:",
        "https://[",
        "https://app\t.example",
        "https://äpp.example",
        "//app.example",
    ],
)
def test_an_origin_no_browser_sends_is_refused(origin: str):
    assert not LISTED.allows(origin, HOST)


@pytest.mark.parametrize(
    "entry",
    [
        "app.example",
        "https://app.example/",
        "https://app.example/path",
        "https://app.example?x=1",
        "https://*.example",
        "https://user:pass@app.example",
        "https://äpp.example",
        "https://",
        "",
    ],
)
def test_a_setting_that_is_no_origin_is_refused_with_the_name_of_the_setting(entry: str):
    with pytest.raises(ValueError, match="QUEUESYSTEM_ORIGINS"):
        Origins([entry])
