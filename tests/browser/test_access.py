"""The console for everybody: with the keyboard, a screen reader, a phone, in the dark."""

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenTab
from tests.browser.tab import PASSWORD, USER, Tab

NEEDS_NAME = {
    "button",
    "textbox",
    "radio",
    "checkbox",
    "spinbutton",
    "combobox",
    "list",
    "form",
    "region",
}


def nameless(tab: Tab) -> list[str]:
    """Return the roles of what a screen reader finds without a name, and can be used."""
    session = tab.page.context.new_cdp_session(tab.page)
    nodes: list[dict[str, Any]] = session.send("Accessibility.getFullAXTree")["nodes"]
    return [
        node["role"]["value"]
        for node in nodes
        if not node["ignored"]
        and node["role"]["value"] in NEEDS_NAME
        and not node["name"]["value"].strip()
    ]


def busy(tab: Tab, gate: Path) -> None:
    """Bring requests of all states into the page."""
    tab.log_in()
    tab.expect_online()
    tab.send("echo", text="1")
    tab.send("fail", message="the shelf is empty")
    tab.send("words_and_gate", text="to be or not", gate=str(gate))
    tab.send("sleep", seconds="3600")
    tab.row(4).get_by_role("button", name="Cancel").click()
    tab.expect_state(4, "cancelled")
    tab.send("echo", text="2")
    tab.expect_state(5, "waiting")
    expect(tab.row(3)).to_contain_text('"or"')


def unhide(tab: Tab) -> None:
    """Show also what is there for outages: notices, attempts, problems."""
    tab.page.evaluate("""() => {
        for (const part of document.querySelectorAll("#console [hidden]")) part.hidden = false;
        for (const part of document.querySelectorAll(".problem, .note")) part.append("problem");
        document.getElementById("state").dataset.state = "offline";
    }""")


def test_everything_works_with_the_keyboard_alone(tab: Tab) -> None:
    press = tab.page.keyboard.press
    tab.open()
    expect(tab.page.get_by_role("textbox", name="User")).to_be_focused()
    tab.page.keyboard.type(USER)
    press("Tab")
    tab.page.keyboard.type(PASSWORD)
    press("Enter")
    tab.expect_online()
    chosen = tab.page.locator("#methods input:checked")
    expect(chosen).to_have_value("echo")
    while not chosen.evaluate("input => input === document.activeElement"):
        press("Tab")
    press("ArrowDown")
    expect(chosen).to_have_value("words")
    press("Tab")
    tab.page.keyboard.type("to be")
    press("Control+Enter")
    tab.expect_state(1, "done")
    assert tab.results(1) == ["to", "be"]


def test_what_happens_is_read_out(tab: Tab, gate: Path) -> None:
    status = tab.page.get_by_role("status")
    tab.log_in()
    expect(status).to_have_text("Connected")
    tab.send("words_and_gate", text="a b", gate=str(gate))
    expect(status).to_contain_text("words_and_gate sent")
    gate.touch()
    expect(status).to_contain_text("words_and_gate 1: done")


def test_everything_that_can_be_used_has_a_name(tab: Tab, gate: Path) -> None:
    tab.open()
    tab.page.get_by_text("Use a token instead").click()
    assert nameless(tab) == []
    busy(tab, gate)
    unhide(tab)
    assert nameless(tab) == []


CONTRAST = """() => {
    const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const over = (color, [r, g, b]) => {
        context.fillStyle = `rgb(${r} ${g} ${b})`;
        context.fillRect(0, 0, 1, 1);
        context.fillStyle = color;
        context.fillRect(0, 0, 1, 1);
        return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const behind = (element) =>
        element
            ? over(getComputedStyle(element).backgroundColor, behind(element.parentElement))
            : [255, 255, 255];
    const luminance = (color) => {
        const [r, g, b] = color.map((part) => {
            const share = part / 255;
            return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const found = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const element = texts.currentNode.parentElement;
        if (!texts.currentNode.data.trim() || !element.checkVisibility()) continue;
        if (element.closest(":disabled, .for-readers")) continue;
        const back = behind(element);
        const lights = [back, over(getComputedStyle(element).color, back)].map(luminance);
        const [dark, light] = lights.sort((a, b) => a - b);
        const ratio = (light + 0.05) / (dark + 0.05);
        if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${texts.currentNode.data.trim()}`);
    }
    return found;
}"""
"""Texts whose contrast is below what WCAG 2.2 asks for (1.4.3, level AA)."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_told_from_its_background(open_tab: OpenTab, gate: Path, scheme: str) -> None:
    tab = open_tab(color_scheme=scheme)
    tab.log_in("wrong password")
    expect(tab.page.get_by_role("alert")).to_be_visible()
    assert tab.page.evaluate(CONTRAST) == []
    busy(tab, gate)
    assert tab.page.evaluate(CONTRAST) == []
    unhide(tab)
    assert tab.page.evaluate(CONTRAST) == []


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_need_not_scroll_sideways(open_tab: OpenTab, gate: Path, width: int) -> None:
    tab = open_tab(viewport={"width": width, "height": 844}, is_mobile=True, has_touch=True)
    busy(tab, gate)
    tab.send("words", text="long" * 100)
    tab.page.get_by_text("History:").click()
    unhide(tab)
    assert tab.page.evaluate("document.documentElement.scrollWidth") == width


def test_on_a_phone_what_was_sent_comes_into_view(open_tab: OpenTab) -> None:
    tab = open_tab(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    tab.log_in()
    tab.expect_online()
    tab.send("echo", text="1")
    expect(tab.row(1)).to_be_in_viewport(ratio=0.5)
