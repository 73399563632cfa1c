"""A person's JupyterLab at the Hub, in Chromium: notebooks there, and the way through the card's link."""

import os
import re
import shutil
from contextlib import contextmanager

import nbformat
import pytest
from playwright.sync_api import expect, sync_playwright

from tests.integration.browser.conftest import CHROMIUM_OPTIONS

BEARER_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{10,}\.")
ASK = "%%sql\nSELECT current_user() AS me"
PATIENCE_MILLISECONDS = 90_000


@contextmanager
def chromium():
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=list(CHROMIUM_OPTIONS))
        context = launched.new_context(viewport={"width": 1280, "height": 720})
        context.set_default_timeout(PATIENCE_MILLISECONDS)
        yield context
        launched.close()


def write_notebook(hub, login, name, *sources):
    """Put a notebook into a person's home."""
    person = hub.people[login]
    path = person.home / name
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}}
    path.write_text(nbformat.writes(nbformat.v4.new_notebook(cells=cells, metadata=metadata)), encoding="utf-8")
    os.chown(path, *hub.system.ids(person.name))
    return path


def run_all(page):
    """Run all cells of the notebook, as soon as it has a kernel."""
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    page.locator("text=/Python 3.*Idle/").first.wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def card_of(page):
    """Return the card that says who is signed in."""
    return page.get_by_role("region", name="Micromegas sign-in")


def sign_in_by_redirect(page, *, done_url):
    """Click the card's link and agree at the provider, where the browser is signed in, until the Hub's last page."""
    with page.context.expect_page() as opened:
        card_of(page).get_by_role("link", name=re.compile("^Sign in")).click()
    tab = opened.value
    tab.get_by_role("button", name="Continue").click()
    tab.wait_for_url(done_url)
    expect(tab.locator("body")).to_contain_text("Back to where you started")
    tab.close()
