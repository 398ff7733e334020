"""The web console as an attacker would use it against who looks at it."""

import re

import pytest

from server.console import console_files
from tests.security.attacks import exchange, status
from tests.server_process import ServerProcess

FILES = console_files()
CODE = {path: file.body.decode() for path, file in FILES.items()}
SCRIPTS = [path for path in FILES if path.endswith(".js")]


def headers_of(response: bytes) -> dict[str, str]:
    lines = response.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


@pytest.mark.parametrize("path", FILES)
async def test_every_file_comes_with_a_strict_policy(server: ServerProcess, path: str) -> None:
    response = await exchange(server, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert status(response) == 200
    headers = headers_of(response)
    policy = dict(
        directive.strip().split(" ", 1)
        for directive in headers["content-security-policy"].split(";")
    )
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("path", SCRIPTS)
def test_no_code_of_the_page_makes_markup_or_code_of_text(path: str) -> None:
    sinks = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|parseFromString|setHTML|srcdoc"
        r"|createContextualFragment|\beval\b|new Function|\bimport\((?!.\./)|javascript:"
        r"|setAttribute\(.on"
    )
    assert not re.search(sinks, CODE[path])


def test_the_page_has_no_inline_script_and_no_inline_style() -> None:
    page = CODE["/"]
    assert not re.search(r"\son\w+=|\sstyle=|<style|javascript:", page)
    assert re.findall(r"<script[^>]*>([^<]*)<", page) == [""]


def test_the_console_names_no_other_server() -> None:
    """So it works offline, and nobody else learns who uses it."""
    for path, text in CODE.items():
        urls = set(re.findall(r"(?:https?|wss?):[^\s\"']*|\burl\([^)]*\)", text))
        assert urls <= {"http://www.w3.org/2000/svg"}, path


def test_the_page_sends_no_login_of_the_browser() -> None:
    """And so no dialogue of the browser asks for a password."""
    calls = [call for path in SCRIPTS for call in re.findall(r"\bfetch\((.*)\)", CODE[path])]
    assert calls
    assert all('credentials: "omit"' in call for call in calls)
