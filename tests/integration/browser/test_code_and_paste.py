"""Signing in by code and by pasting as a person does it in JupyterLab, and what is saved of it."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import expect

from micromegas_jupyter.demo.provider.scripted_person import sign_in
from tests.integration.browser.looks import DARKEST, LIGHTEST, choose_theme, luminance, save

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{5,}\.")


def _saved_after_rows(page, path):
    """Return the notebook as JupyterLab saves it once the query has its rows."""
    page.get_by_text("Alice Martin").first.wait_for()
    page.get_by_text(re.compile(r"✓ 1 row in")).first.wait_for()
    page.locator("text=/Python 3.*Idle/").first.wait_for()
    save(page)
    return path.read_text(encoding="utf-8")


def test_a_code_is_typed_on_another_page_and_the_notebook_goes_on(open_notebook):
    page, path = open_notebook("device", "%micromegas_login --flow device", "%sql SELECT 1 AS one")
    widget = page.get_by_role("group", name="Micromegas sign-in").first
    code = widget.locator("code")
    code.wait_for()
    picture = widget.get_by_role("img", name="QR code of the page to open, with the code filled in")

    picture.wait_for()
    user_code = code.inner_text()
    assert widget.get_by_text("Only type it if you started this.").is_visible()
    assert widget.get_by_text(re.compile(r"valid for \d+:\d\d")).is_visible()
    assert " ".join(user_code) in widget.get_by_role("status").text_content()
    cards = page.locator(".jp-OutputArea .micromegas-card")
    expect(cards).to_have_count(2)  # that of the cell that waits, too
    expect(cards.last).to_contain_text("to continue: go to")
    expect(cards.last.locator("code")).to_have_text(user_code)
    link = widget.get_by_role("link", name=re.compile("Open the page"))
    assert (link.get_attribute("target"), link.get_attribute("rel")) == ("_blank", "noopener noreferrer")
    for theme, is_dark in (("JupyterLab Dark", True), ("JupyterLab Light", False)):
        choose_theme(page, theme)
        assert (luminance(widget) < DARKEST) is is_dark
        assert luminance(picture) > LIGHTEST

    with page.context.expect_page() as opened:
        link.click()
    provider_page = opened.value
    assert user_code not in provider_page.url
    provider_page.get_by_role("textbox").fill(user_code)
    provider_page.get_by_role("button").first.click()
    provider_page.get_by_role("button", name=re.compile("Alice")).click()
    provider_page.get_by_role("button", name="Allow").click()
    provider_page.get_by_text("The other device is signed in").wait_for()

    saved = _saved_after_rows(page, path)
    assert widget.locator("code:visible").count() == 0
    assert user_code not in saved
    assert not TOKEN.search(saved)


def test_a_pasted_address_and_the_link_to_it_leave_nothing_in_the_saved_notebook(open_notebook):
    page, path = open_notebook("paste", "%micromegas_login --flow paste", "%sql SELECT 1 AS one")
    link = page.get_by_role("link", name=re.compile("^Sign in"))
    link.wait_for()
    address = link.get_attribute("href")

    answer = page.locator("input.jp-Stdin-input")
    answer.wait_for()
    assert answer.get_attribute("type") == "password"
    answer.fill("isn't the URL")
    first = answer.element_handle()
    answer.press("Enter")
    page.get_by_text("The pasted text isn't the URL").wait_for()
    # The second question comes a moment before or after the first one goes.
    first.wait_for_element_state("hidden")
    answer.wait_for()
    answer.fill(sign_in(address, visit_callback=False))
    answer.press("Enter")

    saved = _saved_after_rows(page, path)
    for spent in ("Paste the address here", "The pasted text isn't the URL"):
        assert page.get_by_text(spent).count() == 0
        assert spent not in saved
    asked = parse_qs(urlsplit(address).query)
    for secret in (asked["state"][0], asked["code_challenge"][0], asked["nonce"][0], "code="):
        assert secret not in saved
    assert not TOKEN.search(saved)
