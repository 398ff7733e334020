"""The console while nothing goes wrong: log in, choose, send, watch, cancel."""

import re
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.conftest import OpenTab
from tests.browser.tab import PASSWORD, USER, Tab
from tests.server_process import token

# Log in


def test_a_user_logs_in_with_a_password_that_is_kept_nowhere(tab: Tab) -> None:
    tab.log_in()
    tab.expect_online()
    expect(tab.page.locator("#subject")).to_have_text(USER)
    assert "queuesystem-console-token" in tab.stored()
    assert PASSWORD not in tab.stored()
    assert PASSWORD not in tab.page.content()
    expect(tab.page.locator("#password")).to_have_value("")


def test_a_wrong_password_is_said_in_the_page(tab: Tab) -> None:
    tab.log_in("wrong password")
    expect(tab.page.get_by_role("alert")).to_have_text("wrong name or password")
    tab.log_in_again()
    tab.expect_online()


def test_a_pasted_token_logs_in(tab: Tab) -> None:
    tab.use_token(token("bob"))
    tab.expect_online()
    expect(tab.page.locator("#subject")).to_have_text("bob")


def test_a_pasted_token_that_is_no_good_is_not_kept(tab: Tab) -> None:
    tab.use_token(token("bob", audience="another"))
    expect(tab.page.get_by_role("alert")).to_contain_text("audience")
    assert tab.stored() == "[{},{}]"


def test_logging_out_leaves_nothing_behind(tab: Tab, gate: Path) -> None:
    tab.log_in()
    tab.expect_online()
    tab.send("words_and_gate", text="secret words", gate=str(gate))
    expect(tab.row(1)).to_contain_text("secret")
    tab.page.get_by_role("button", name="Log out").click()
    expect(tab.page.get_by_role("button", name="Log in")).to_be_visible()
    tab.wait_until(lambda: tab.stored() == "[{},{}]")
    gate.touch()
    tab.page.reload()
    expect(tab.page.get_by_role("button", name="Log in")).to_be_visible()
    expect(tab.rows).to_have_count(0)


def test_logging_out_before_it_is_connected_leaves_nothing_behind(tab: Tab, gate: Path) -> None:
    tab.log_in()
    tab.expect_online()
    tab.send("words_and_gate", text="secret words", gate=str(gate))
    expect(tab.row(1)).to_contain_text("secret")
    tab.page.route_web_socket("**/ws", lambda _socket: None)  # which never answers
    tab.page.reload()
    expect(tab.state).to_have_text("Connecting")
    assert "secret words" in tab.stored()
    tab.page.get_by_role("button", name="Log out").click()
    expect(tab.page.get_by_role("button", name="Log in")).to_be_visible()
    assert tab.stored() == "[{},{}]"


# Methods


def test_methods_are_listed_with_their_params(tab: Tab) -> None:
    tab.log_in()
    radio = tab.page.get_by_role("radio", name="words(text, delay?)")
    radio.check()
    expect(radio).to_have_accessible_description(re.compile("Stream the words of text.* stream"))
    text = tab.page.get_by_role("textbox", name="text string")
    delay = tab.page.get_by_role("spinbutton", name="delay number, optional")
    expect(text).to_be_visible()
    expect(delay).to_have_accessible_description("seconds, 0 to 10")
    expect(delay).to_have_attribute("placeholder", "0")


def test_methods_beyond_the_token_are_not_listed(open_tab: OpenTab) -> None:
    for scope, count in ((None, 0), ("admin", 1)):
        tab = open_tab()
        tab.use_token(token(scope=scope))
        expect(tab.page.get_by_role("radio", name="echo(text)")).to_be_visible()
        expect(tab.page.get_by_role("radio", name="secret()")).to_have_count(count)


def test_params_go_out_as_their_types(tab: Tab) -> None:
    tab.log_in()
    tab.expect_online()
    tab.send("echo", text='{"a": [1, true, null, "\u00fc"]}')
    tab.expect_state(1, "done")
    assert tab.results(1) == [{"a": [1, True, None, "\u00fc"]}]
    tab.send("sha256", text="", rounds="2")
    tab.expect_state(2, "done")


def test_what_is_not_json_is_said_before_it_is_sent(tab: Tab) -> None:
    tab.log_in()
    tab.expect_online()
    tab.send("echo", text="not quoted")
    problem = tab.page.get_by_role("textbox", name="text any").evaluate(
        "input => input.validationMessage"
    )
    assert "This is not JSON" in problem
    expect(tab.rows).to_have_count(0)
    tab.send("echo", text='"quoted"')
    tab.expect_state(1, "done")


# Requests


def test_results_are_shown_while_the_request_runs(tab: Tab, gate: Path) -> None:
    tab.log_in()
    tab.expect_online()
    tab.send("words_and_gate", text="to be or", gate=str(gate))
    tab.expect_state(1, "running")
    expect(tab.row(1)).to_contain_text('"be"')
    assert tab.results(1) == ["to", "be"]
    gate.touch()
    tab.expect_state(1, "done")
    assert tab.results(1) == ["to", "be", "or"]
    expect(tab.row(1).locator(".times")).to_have_text(
        re.compile(r"waited\s\d.* · ran\s\d.* · 3\sresults")
    )


def test_the_queue_is_shown_as_it_drains(tab: Tab, gate: Path) -> None:
    tab.log_in()
    tab.expect_online()
    queue = tab.page.locator("#queue li")
    tab.send("words_and_gate", text="a b", gate=str(gate))
    for _ in range(2):
        tab.send("echo", text="1")
    expect(queue).to_have_text(["#1 words_and_gate", "#2 echo", "#3 echo"])
    expect(tab.page.get_by_text("3 unfinished")).to_be_visible()
    tab.expect_state(1, "running")
    tab.expect_state(3, "waiting")
    gate.touch()
    expect(queue).to_have_count(0)
    for n in (1, 2, 3):
        tab.expect_state(n, "done")


def test_a_waiting_and_a_running_request_are_cancelled(tab: Tab) -> None:
    tab.log_in()
    tab.expect_online()
    tab.send("sleep", seconds="3600")
    tab.send("echo", text="1")
    tab.expect_state(2, "waiting")
    tab.row(2).get_by_role("button", name="Cancel").click()
    tab.expect_state(2, "cancelled")
    tab.expect_state(1, "running")
    tab.row(1).get_by_role("button", name="Cancel").click()
    tab.expect_state(1, "cancelled")


def test_an_error_is_shown_with_its_code_and_text(tab: Tab) -> None:
    tab.log_in()
    tab.expect_online()
    tab.send("fail", message="the shelf is empty", code="sold_out")
    tab.expect_state(1, "failed")
    expect(tab.row(1).locator(".note")).to_have_text('sold_out: the shelf is empty {"attempt":1}')


def test_markup_in_what_is_shown_is_text(tab: Tab) -> None:
    markup = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    tab.use_token(token(markup))
    tab.expect_online()
    expect(tab.page.locator("#subject")).to_have_text(markup)
    tab.send("fail", message=markup)
    expect(tab.row(1).locator(".note")).to_contain_text(markup)
    tab.send("words", text=markup)
    expect(tab.row(2).locator(".results li").first).to_have_text('"<img"')
    expect(tab.page.locator("main img, main script")).to_have_count(0)


def test_requests_that_ended_are_cleared(tab: Tab) -> None:
    tab.log_in()
    tab.expect_online()
    tab.send("echo", text="1")
    tab.send("sleep", seconds="3600")
    tab.expect_state(2, "running")
    tab.page.get_by_role("button", name="Clear ended").click()
    expect(tab.rows).to_have_count(1)
    tab.row(2).get_by_role("button", name="Cancel").click()


def test_a_thousand_results_leave_the_page_responsive(tab: Tab, gate: Path) -> None:
    words = [f"w{number}" for number in range(1000)]
    tab.log_in()
    tab.expect_online()
    # What is drawn is counted: for 1,000 results once a frame, not 1,000 times.
    tab.page.evaluate("""() => {
        window.draws = 0;
        const list = document.getElementById("requests");
        new MutationObserver((all) => {
            if (all.some(({ target }) => target.className === "results")) window.draws++;
        }).observe(list, { childList: true, subtree: true });
    }""")
    tab.send("words_and_gate", text=" ".join(words), gate=str(gate))
    expect(tab.row(1).locator(".results li")).to_have_count(999)
    # It takes input and acts on it while the stream is open.
    tab.send("echo", text='"in between"')
    tab.expect_state(2, "waiting")
    gate.touch()
    tab.expect_state(1, "done")
    assert tab.results(1) == words
    assert tab.page.evaluate("window.draws") < 100
    expect(tab.page.get_by_role("status")).to_contain_text("words_and_gate 1: done")
