"""A person of the Hub opens JupyterLab in a browser: signed in, without a click or by the card's link, and safely."""

import os
import re

import nbformat
import pytest
from playwright.sync_api import expect, sync_playwright

from tests.integration.browser.conftest import CHROMIUM_OPTIONS, chromium
from tests.integration.browser.looks import (
    DARKEST,
    LIGHTEST,
    check_accessible,
    choose_theme,
    luminance,
    save,
    wait_for_kernel,
    wait_until_closed,
)

__all__ = ["chromium"]

# The first test starts the Hub.
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

WIDGET = ".micromegas-card"
BEARER_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{10,}\.")
ASK = "%%sql\nSELECT current_user() AS me"
PATIENCE_MILLISECONDS = 90_000


@pytest.fixture(scope="module")
def context(chromium, signed_in):
    """Alice's browser, in which she is signed in at the Hub and at the provider."""
    hers = signed_in.browser()
    hers.sign_in("alice")
    kept = [(each.name, each.value or "", each.domain, each.path) for each in hers.session.cookies]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_OPTIONS))
        made = launched.new_context(viewport={"width": 1280, "height": 720}, reduced_motion="reduce")
        made.set_default_timeout(PATIENCE_MILLISECONDS)
        made.add_cookies([dict(zip(("name", "value", "domain", "path"), each, strict=True)) for each in kept])
        yield made
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
    wait_for_kernel(page)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def card_of(page):
    """Return the card that says who is signed in."""
    return page.get_by_role("group", name="Micromegas sign-in").first


def test_nothing_has_to_be_clicked_and_the_card_says_who_signed_in(signed_in, context, save_screenshot):
    alice = signed_in.people["alice"]
    notebook = write_notebook(signed_in, "alice", "hub.ipynb", "%load_ext micromegas_jupyter", "%micromegas_login", ASK)
    page = context.new_page()
    page.goto(f"{signed_in.url}user/{alice.name}/lab/workspaces/hub/tree/hub.ipynb")

    run_all(page)

    card = card_of(page)
    expect(card).to_contain_text("Signed in through JupyterHub · 127.0.0.1")
    # Its token lives for seconds, and nothing asks for the next one before there is a query.
    expect(card).to_contain_text(re.compile(r" · (expires in 0:\d\d, renews by itself|renews at the next query)"))
    expect(card.get_by_role("button", name=re.compile("Sign"))).to_have_count(0)
    expect(page.locator(".jp-OutputArea").last).to_contain_text("alice")
    expect(card).to_contain_text(re.compile(r"connected as \S*alice\S*, \d+ ms"))
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


def test_the_cards_link_signs_in_through_the_one_redirect_of_the_hub(signed_in, context):
    alice = signed_in.people["alice"]
    notebook = write_notebook(
        signed_in,
        "alice",
        "redirect.ipynb",
        f"%env MICROMEGAS_CONFIG_DIR={alice.home / 'in-a-browser'}\n%load_ext micromegas_jupyter",
        "%micromegas_login --flow redirect",
        ASK,
    )
    page = context.new_page()
    page.goto(f"{signed_in.url}user/{alice.name}/lab/workspaces/redirect/tree/redirect.ipynb")
    run_all(page)

    # She is signed in at the provider, where she only has to agree.
    card = card_of(page)
    with context.expect_page() as opened:
        card.get_by_role("link", name=re.compile("^Sign in")).click()
    tab = opened.value
    tab.get_by_role("button", name="Continue").click()
    wait_until_closed(tab)
    assert tab.url == f"{signed_in.service_url}done"

    expect(card).to_contain_text("Signed in as ")
    expect(card).not_to_contain_text("through JupyterHub")
    expect(page.locator(".jp-OutputArea").last).to_contain_text("alice")
    save(page)
    texts = [page.content(), notebook.read_text(encoding="utf-8")]
    assert not any(BEARER_TOKEN.search(text) or "code=" in text for text in texts)
