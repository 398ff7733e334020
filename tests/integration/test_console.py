"""The files of the console, as HTTP gives them and as they are installed."""

import re
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import pytest

from server.console import console_files
from tests.integration.test_http import ask
from tests.security.attacks import exchange
from tests.server_process import ROOT, ServerProcess, token

FILES = console_files()


def fetch(
    server: ServerProcess, path: str, method: str = "GET", **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    """Return status, body and headers (lower-case names)."""
    request = urllib.request.Request(f"{server.http}{path}", method=method, headers=headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            answer = response.status, response.read(), response.headers
    except urllib.error.HTTPError as error:
        answer = error.code, error.read(), error.headers
    status, body, fields = answer
    return status, body, {name.lower(): value for name, value in fields.items()}


# Files


@pytest.mark.parametrize("path", FILES)
def test_each_file_is_served_whole_and_by_its_type(server: ServerProcess, path: str) -> None:
    status, body, headers = fetch(server, path)
    assert (status, body) == (200, FILES[path].body)
    assert headers["content-type"] == FILES[path].content_type
    assert int(headers["content-length"]) == len(body)


def test_every_file_of_the_console_is_in_the_table_and_no_other() -> None:
    bodies = {path.read_bytes() for path in (ROOT / "server/web").iterdir()}
    bodies.add((ROOT / "protocol/client.js").read_bytes())
    assert {file.body for file in FILES.values()} == bodies


def test_every_file_that_the_console_asks_for_is_there() -> None:
    pattern = rb'^import .* from "\./([\w.]+)"|(?:src|href)="([\w.]+)"'
    asked = {
        f"/{(one or other).decode()}"
        for file in FILES.values()
        for one, other in re.findall(pattern, file.body, re.MULTILINE)
    }
    assert asked == FILES.keys() - {"/"}


def test_a_file_that_the_browser_has_is_not_sent_again(server: ServerProcess) -> None:
    headers = fetch(server, "/console.css")[2]
    assert headers["cache-control"] == "no-cache"  # it asks each time
    known = f'"another", W/{headers["etag"]}'
    status, body, again = fetch(server, "/console.css", **{"If-None-Match": known})
    assert (status, body, again["etag"]) == (304, b"", headers["etag"])
    assert fetch(server, "/console.css", **{"If-None-Match": '"another"'})[0] == 200


async def test_head_gives_the_headers_alone(server: ServerProcess) -> None:
    head = await exchange(server, b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert await exchange(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") == head + FILES["/"].body


def test_a_file_takes_no_other_method(server: ServerProcess) -> None:
    status, _, headers = fetch(server, "/", "POST")
    assert (status, headers["allow"]) == (405, "GET, HEAD")


def test_the_console_can_be_switched_off(own_server: ServerProcess) -> None:
    own_server.settings["console"] = "off"
    own_server.start()
    assert {fetch(own_server, path)[0] for path in FILES} == {404}
    assert ask(own_server, "/methods", Authorization=f"Bearer {token()}")[0] == 200


def test_the_wheel_has_the_files_of_the_console(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {archive.read(name) for name in archive.namelist()}
    assert {file.body for file in FILES.values()} <= packed
