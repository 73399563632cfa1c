"""Signing in by redirect in Chromium: at a page of a real Jupyter server, and what the browser remembers of it."""

import re
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import sync_playwright

from tests.integration.browser.conftest import CHROMIUM_OPTIONS, STATE_TIMEOUT_MILLISECONDS, chromium
from tests.integration.relay.servers import TOKEN

__all__ = ["chromium"]

CODE = re.compile(r"[?&]code=")

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def context(chromium, server):
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_OPTIONS))
        made = launched.new_context()
        made.set_default_timeout(STATE_TIMEOUT_MILLISECONDS)
        made.new_page().goto(f"{server.url}login?token={TOKEN}")
        yield made
        launched.close()


def sign_in_as_alice(page):
    alice, allow = page.get_by_role("button", name=re.compile("Alice")), page.get_by_role("button", name="Allow")
    alice.or_(allow).first.wait_for()
    if alice.is_visible():  # later she is signed in at the provider already
        alice.click()
    allow.click()


def history_of(page):
    """Return every address that the tab's back button could lead to."""
    entries = page.context.new_cdp_session(page).send("Page.getNavigationHistory")["entries"]
    return [str(entry[name]) for entry in entries for name in ("url", "userTypedURL")]


def test_the_code_is_in_no_address_bar_and_no_history(context, kernel):
    page = context.new_page()
    page.goto(kernel.start_url())
    sign_in_as_alice(page)

    page.get_by_text("Signed in as Alice Martin.").wait_for()

    assert urlsplit(page.url).path == "/team/x/micromegas/done"
    assert urlsplit(page.url).query == ""
    assert [url for url in history_of(page) if CODE.search(url)] == []
    assert page.evaluate("() => document.referrer") == ""
    assert page.evaluate("() => [localStorage.length, sessionStorage.length]") == [0, 0]
    page.close()
