"""The console while servers are killed, pages are loaded again, networks and tokens are lost."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenTab, prepared
from tests.browser.tab import PASSWORD, USER, Tab
from tests.integration.test_http import ask
from tests.server_process import ServerProcess, token

WORDS = [f"word-{number}" for number in range(30)]
LATE = f'"{WORDS[-2]}"'
"""What is shown last before the gate is open."""


def stream(tab: Tab, gate: Path) -> None:
    """Send request 1, and see all of its results but the last."""
    tab.expect_online()
    tab.send("words_and_gate", text=" ".join(WORDS), gate=str(gate))
    expect(tab.row(1)).to_contain_text(LATE)


def ends(tab: Tab, gate: Path) -> None:
    """Open the gate; request 1 ends, with every word once and in order."""
    gate.touch()
    tab.expect_state(1, "done")
    assert tab.results(1) == WORDS


def test_a_stream_goes_on_after_the_server_was_killed(
    tab: Tab, server: ServerProcess, gate: Path
) -> None:
    tab.log_in()
    stream(tab, gate)
    server.kill()
    expect(tab.state).not_to_have_text("Connected")
    server.start()
    tab.expect_online()
    expect(tab.row(1).locator(".attempt")).to_have_text("attempt 2")
    ends(tab, gate)
    expect(tab.row(1)).to_contain_text("attempt 1 was interrupted after 29 results")
    expect(tab.row(1).locator(".times")).to_contain_text("· 30 results")


def test_a_stream_goes_on_after_the_page_was_loaded_again(tab: Tab, gate: Path) -> None:
    tab.log_in()
    stream(tab, gate)
    tab.page.reload()
    tab.expect_online()
    expect(tab.row(1)).to_contain_text(LATE)
    assert tab.results(1) == WORDS[:-1]
    ends(tab, gate)


def test_a_page_loaded_while_the_server_restarts_goes_on(
    tab: Tab, server: ServerProcess, gate: Path
) -> None:
    tab.log_in()
    stream(tab, gate)
    tab.send("echo", text='"behind it"')
    tab.expect_state(2, "waiting")
    server.kill()
    # A page that is there is loaded again by its script: the server has none to give.
    server.start()
    tab.page.reload()
    tab.expect_online()
    ends(tab, gate)
    tab.expect_state(2, "done")
    assert tab.results(2) == ["behind it"]


def drop(tab: Tab) -> None:
    """Drop the connection, and let the time pass for which it stays away."""
    clock = tab.page.clock
    clock.pause_at((tab.page.evaluate("Date.now()") + 1000) / 1000)
    before = tab.sockets
    tab.page.get_by_role("button", name="Drop the connection").click()
    expect(tab.state).to_have_text("Connection dropped")
    clock.run_for(2900)
    assert tab.sockets == before
    clock.run_for(100)
    clock.resume()


def test_dropping_the_connection_loses_nothing(tab: Tab, gate: Path) -> None:
    tab.page.clock.install()
    tab.log_in()
    stream(tab, gate)
    tab.page.evaluate("""() => {
        window.said = "";
        const parts = document.querySelectorAll("#state, #announcements");
        const note = (changes) => {
            for (const { target } of changes) window.said += `${target.textContent}. `;
        };
        for (const part of parts) new MutationObserver(note).observe(part, { childList: true });
    }""")
    drop(tab)
    tab.expect_online()
    expect(tab.page.get_by_role("status")).to_contain_text("the session was resumed")
    said = tab.page.evaluate("window.said")
    assert "Connection dropped. " in said
    assert "The connection is lost" in said
    ends(tab, gate)
    assert tab.sockets == 2
    expect(tab.page.get_by_text("History: 1 reconnect")).to_be_visible()


def test_a_device_that_was_offline_goes_on(tab: Tab, gate: Path) -> None:
    tab.page.clock.install()
    tab.log_in()
    stream(tab, gate)
    tab.page.context.set_offline(True)
    drop(tab)
    expect(tab.state).to_have_text("This device is offline")
    gate.touch()
    tab.page.context.set_offline(False)
    tab.expect_online()
    ends(tab, gate)


def test_another_tab_takes_the_session_over(tab: Tab, gate: Path) -> None:
    tab.log_in()
    stream(tab, gate)
    with tab.page.expect_popup() as popup:  # it has a copy of the storage, as a duplicated tab
        tab.page.evaluate("() => void window.open('/')")
    newer = popup.value
    expect(newer.locator("#requests > li .state")).to_have_text("running")
    expect(tab.page.locator("#over")).to_contain_text(
        "Another tab or program goes on with this session."
    )
    tab.page.get_by_role("button", name="Connect again").click()
    tab.expect_online()
    gate.touch()
    expect(newer.locator("#requests > li .state")).to_have_text("done")


# Tokens

AFTER_AN_HOUR = 3_500_000
"""Milliseconds after which a token of an hour is renewed."""


def test_a_token_is_renewed_before_it_expires(tab: Tab) -> None:
    tab.page.clock.install()
    tab.log_in()
    tab.expect_online()
    tab.page.clock.fast_forward(AFTER_AN_HOUR)
    tab.wait_until(lambda: tab.tokens == 2 and tab.refreshed)
    expect(tab.page.locator("#renewal")).to_be_hidden()


def test_a_page_without_the_password_asks_for_it_before_the_token_expires(tab: Tab) -> None:
    tab.log_in()
    tab.expect_online()
    tab.page.clock.install()
    tab.page.reload()
    tab.expect_online()
    tab.page.clock.fast_forward(AFTER_AN_HOUR)
    tab.renew("wrong password")
    expect(tab.page.get_by_text("wrong name or password")).to_be_visible()
    tab.renew(PASSWORD)
    expect(tab.page.locator("#renewal")).to_be_hidden()
    tab.wait_until(lambda: tab.refreshed)


@pytest.fixture
def lenient_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server whose tokens expire at once, and that takes them all the same."""
    server = prepared(tmp_path, token_ttl=1, jwt_leeway=300)
    yield server
    server.close()


def become_strict(server: ServerProcess, tab: Tab) -> None:
    """Kill the server, and start it so that the tokens it has seen have expired."""
    server.kill()
    server.settings |= {"token_ttl": 3600, "jwt_leeway": 0}
    server.start()
    used = token(USER, ttl_seconds=1)
    tab.wait_until(lambda: ask(server, "/methods", Authorization=f"Bearer {used}")[0] == 401)


def test_a_token_that_expired_during_an_outage_is_renewed(
    open_tab: OpenTab, lenient_server: ServerProcess, gate: Path
) -> None:
    tab = open_tab(lenient_server)
    tab.log_in()
    stream(tab, gate)
    become_strict(lenient_server, tab)
    tab.expect_online()
    assert tab.tokens == 2
    ends(tab, gate)


def test_a_pasted_token_that_expired_during_an_outage_is_asked_for(
    open_tab: OpenTab, lenient_server: ServerProcess, gate: Path
) -> None:
    tab = open_tab(lenient_server)
    tab.use_token(token(USER, ttl_seconds=1))
    stream(tab, gate)
    become_strict(lenient_server, tab)
    tab.renew(token("somebody-else"))
    expect(tab.page.get_by_text("that token is not alice's")).to_be_visible()
    tab.renew(token(USER))
    tab.expect_online()
    ends(tab, gate)


def test_a_page_loaded_with_an_expired_token_asks_to_log_in_and_goes_on(
    open_tab: OpenTab, lenient_server: ServerProcess, gate: Path
) -> None:
    tab = open_tab(lenient_server)
    tab.use_token(token(USER, ttl_seconds=1))
    stream(tab, gate)
    tab.page.goto("about:blank")
    become_strict(lenient_server, tab)
    tab.open()
    expect(tab.page.locator("#login-problem")).to_contain_text("expired")
    tab.log_in_again()
    tab.expect_online()
    ends(tab, gate)
