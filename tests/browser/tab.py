"""The console in a tab of Chromium, by what its user sees and does."""

import json
import time
from collections.abc import Callable
from typing import Any

from playwright.sync_api import BrowserContext, Locator, expect

from tests.server_process import ServerProcess

USER, PASSWORD = "alice", "correct horse"

expect.set_options(timeout=30_000)


class Tab:
    """A tab with the console; `others` are the requests that went to another server."""

    def __init__(self, context: BrowserContext, server: ServerProcess) -> None:
        self.server = server
        self.errors: list[str] = []
        self.others: list[str] = []
        self.frames: list[str] = []
        self.sockets = 0
        self.tokens = 0
        self.page = context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self._said(message.text))
        self.page.on("request", lambda request: self._requested(request.url))
        self.page.on("websocket", self._connected)

    def _said(self, text: str) -> None:
        if "Content Security Policy" in text:
            self.errors.append(text)

    def _requested(self, url: str) -> None:
        if not url.startswith(f"{self.server.http}/"):
            self.others.append(url)
        self.tokens += url.endswith("/token")

    def _connected(self, socket: Any) -> None:
        self.sockets += 1
        socket.on("framereceived", lambda frame: self.frames.append(str(frame)))

    # What a user does

    def open(self) -> None:
        self.page.goto(f"{self.server.http}/")

    def log_in(self, password: str = PASSWORD) -> None:
        """Open the console, and log in as USER."""
        self.open()
        self.page.get_by_role("textbox", name="User").fill(USER)
        self.log_in_again(password)

    def log_in_again(self, password: str = PASSWORD) -> None:
        """Give the password where the name is there."""
        self.page.locator("#login").get_by_label("Password", exact=True).fill(password)
        self.page.get_by_role("button", name="Log in").click()

    def renew(self, secret: str) -> None:
        """Give what the page asks for when its token runs out."""
        self.page.get_by_label("Password, or a new token").fill(secret)
        self.page.get_by_role("button", name="Go on").click()

    def use_token(self, token: str) -> None:
        """Open the console, and paste a token."""
        self.open()
        self.page.get_by_text("Use a token instead").click()
        self.page.get_by_role("textbox", name="Token").fill(token)
        self.page.get_by_role("button", name="Use the token").click()

    def send(self, method: str, **params: str) -> None:
        """Fill in the params as text, and send the request."""
        self.page.get_by_role("radio", name=f"{method}(").check()
        for name, text in params.items():
            self.page.locator("#params").get_by_label(name).fill(text)
        self.page.get_by_role("button", name="Send").click()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Let the tab go on until the condition holds."""
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline
            self.page.wait_for_timeout(20)

    # What a user sees

    @property
    def state(self) -> Locator:
        return self.page.locator("#state")

    @property
    def rows(self) -> Locator:
        """The requests, the newest first."""
        return self.page.locator("#requests > li")

    def row(self, n: int) -> Locator:
        return self.rows.filter(has=self.page.get_by_text(f"#{n}", exact=True))

    def results(self, n: int) -> list[Any]:
        """Return the results of request `n` as they are shown."""
        texts = self.row(n).locator(".results li").all_text_contents()
        return [json.loads(text) for text in texts]

    def expect_online(self) -> None:
        expect(self.state).to_have_text("Connected")

    def expect_state(self, n: int, state: str) -> None:
        expect(self.row(n).locator(".state")).to_have_text(state)

    @property
    def refreshed(self) -> bool:
        """Whether the server has taken a newer token in the middle of a connection."""
        return any('"refreshed"' in frame for frame in self.frames)

    def stored(self) -> str:
        """Return everything that outlives the page."""
        return str(self.page.evaluate("JSON.stringify([sessionStorage, localStorage])"))
