"""Debian's Chromium, driven by Playwright, and a server whose console it shows."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.tab import PASSWORD, USER, Tab
from tests.integration.test_http import user
from tests.server_process import ServerProcess

FLAGS = [
    "--no-sandbox",  # of no use against our own page, and there is none for root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

OpenTab = Callable[..., Tab]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A browser with a profile of its own; `TEST_CHROMIUM=/usr/bin/chromium` chooses another."""
    path = os.environ.get("TEST_CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.skip("no Chromium: apt-get install chromium, or set TEST_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        yield browser
        browser.close()


def prepared(directory: Path, **settings: object) -> ServerProcess:
    """Return a running server that has a user."""
    server = ServerProcess(
        directory, handlers="tests.integration.handlers:handlers", auth_timeout=30, **settings
    )
    server.start()
    user(server, "add", USER, "--password-stdin", password=PASSWORD)
    return server


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server for all of these tests; some kill it and start it again."""
    server = prepared(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """The file a stream of `words_and_gate` waits for before its last word."""
    return tmp_path / "gate"


@pytest.fixture
def open_tab(browser: Browser, server: ServerProcess) -> Iterator[OpenTab]:
    """Open tabs with profiles of their own.

    In none of them may a script fail, the Content-Security-Policy be violated, or anything be asked
    of another server.
    """
    tabs: list[Tab] = []

    def open_tab(server: ServerProcess = server, **context: object) -> Tab:
        # Nothing waits for animations, and they cost CPU where there is no GPU.
        options: Any = {"reduced_motion": "reduce"} | context
        tabs.append(Tab(browser.new_context(**options), server))
        return tabs[-1]

    yield open_tab
    for tab in tabs:
        tab.page.context.close()
    assert [(tab.errors, tab.others) for tab in tabs] == [([], [])] * len(tabs)


@pytest.fixture
def tab(open_tab: OpenTab) -> Tab:
    """A tab that shows nothing yet."""
    return open_tab()
