"""A person of the Hub opens JupyterLab in a browser: signed in without a click, and nothing secret is in the page."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING

import nbformat
import pytest
from playwright.sync_api import expect, sync_playwright

from tests.integration.browser.conftest import CHROMIUM_OPTIONS
from tests.integration.browser.looks import DARKEST, LIGHTEST, check_accessible, choose_theme, luminance, save

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import BrowserContext, Page

    from tests.integration.hub.running import RunningHub
    from tests.screenshots import SaveScreenshot

# The first test starts the Hub.
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

WIDGET = ".micromegas-identity"
BEARER_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{10,}\.")
CELLS = ("%load_ext micromegas_jupyter", "%micromegas_login", "%%sql\nSELECT current_user() AS me")
PATIENCE_MILLISECONDS = 90_000


@pytest.fixture
def context(signed_in: RunningHub) -> Iterator[BrowserContext]:
    """Alice's browser, in which she is signed in at the Hub."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    hers = signed_in.browser()
    hers.sign_in("alice")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_OPTIONS))
        made = launched.new_context(viewport={"width": 1280, "height": 720})
        made.set_default_timeout(PATIENCE_MILLISECONDS)
        made.add_cookies(
            [
                {"name": cookie.name, "value": cookie.value or "", "domain": cookie.domain, "path": cookie.path}
                for cookie in hers.session.cookies
            ]
        )
        yield made
        launched.close()


def test_nothing_has_to_be_clicked_and_the_card_says_who_signed_in(
    signed_in: RunningHub, context: BrowserContext, save_screenshot: SaveScreenshot
) -> None:
    alice = signed_in.people["alice"]
    notebook = alice.home / "hub.ipynb"
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}}
    notebook.write_text(nbformat.writes(nbformat.v4.new_notebook(cells=cells, metadata=metadata)), encoding="utf-8")
    os.chown(notebook, *signed_in.system.ids(alice.name))
    page = context.new_page()
    page.goto(f"{signed_in.url}user/{alice.name}/lab/workspaces/hub/tree/hub.ipynb")

    run_all(page)

    card = page.get_by_role("region", name="Micromegas sign-in")
    expect(card).to_contain_text("Signed in through JupyterHub · 127.0.0.1", timeout=PATIENCE_MILLISECONDS)
    expect(card.get_by_role("button", name=re.compile("Sign"))).to_have_count(0)
    expect(page.locator(".jp-OutputArea").last).to_contain_text("alice", timeout=PATIENCE_MILLISECONDS)
    expect(card).to_contain_text(re.compile(r"connected as \S*alice\S*, \d+ ms"), timeout=PATIENCE_MILLISECONDS)
    page.add_style_tag(content=".Toastify { display: none }")  # JupyterLab asks everybody whether they want its news
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        choose_theme(page, theme)
        save_screenshot(page, f"jupyterhub-{theme.split()[-1].lower()}")
        check_accessible(page, WIDGET, texts=3)
        light = luminance(card)
        assert light > LIGHTEST if theme.endswith("Light") else light < DARKEST
    save(page)
    texts = [page.content(), notebook.read_text(encoding="utf-8")]
    assert "Signed in through JupyterHub" in texts[1]
    hub_token = signed_in.server_token("alice")
    assert not any(hub_token in text or BEARER_TOKEN.search(text) for text in texts)


def run_all(page: Page) -> None:
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    page.locator("text=/Python 3.*Idle/").first.wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
