"""What the policies of the console stop, seen from inside a browser."""

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.tab import Tab


def problem(page: Page, script: str) -> str:
    """Return the error with which a script fails, run as by one that got into the page."""
    return str(
        page.evaluate(
            f"async () => {{ try {{ {script} }} catch (error) {{ return `${{error}}` }} }}"
        )
    )


@pytest.mark.parametrize(
    ("script", "needed"),
    [
        ("document.body.innerHTML = '<img src=x onerror=alert()>'", "TrustedHTML"),
        ("document.createElement('script').textContent = 'alert()'", "TrustedScript"),
        ("document.createElement('script').src = '/console.js'", "TrustedScriptURL"),
        ("document.body.setAttribute('onclick', 'alert()')", "TrustedScript"),
        ("setTimeout('alert()')", "TrustedScript"),
    ],
    ids=["markup", "inline", "source", "attribute", "text"],
)
def test_a_script_that_gets_into_the_page_does_not_run(tab: Tab, script: str, needed: str) -> None:
    tab.open()
    assert needed in problem(tab.page, script)
    tab.errors.clear()  # what the browser said about it


def test_nothing_is_sent_to_another_server(tab: Tab) -> None:
    tab.open()
    # On the same machine: another port is another server.
    foreign = "http://127.0.0.1:9/"
    assert "Failed to fetch" in problem(tab.page, f'await fetch("{foreign}")')
    blocked = [error for error in tab.errors if "connect-src" in error]
    assert blocked
    tab.errors.clear()
    tab.others.clear()


def test_the_console_is_shown_in_no_frame(tab: Tab) -> None:
    page = tab.page

    def framing(route: Route) -> None:
        route.fulfill(body='<iframe src="/"></iframe>', content_type="text/html")

    # Not even in one of this server's own.
    page.route("**/framing", framing)
    page.goto(f"{tab.server.http}/framing")
    tab.wait_until(lambda: any("frame-ancestors" in error for error in tab.errors))
    expect(page.frame_locator("iframe").get_by_text("Log in")).to_have_count(0)
    tab.errors.clear()
    tab.others.clear()
