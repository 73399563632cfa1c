"""A failed statement in JupyterLab: what the error means, and the corrected cell; a sign-in that was denied."""

import re

import pytest
from playwright.sync_api import expect

from tests.integration.browser.looks import sign_in_by_code

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

WRONG = "%%sql --limit 5\nSELECT time, mesage\nFROM log_entries"


def test_an_error_is_explained_and_its_corrected_cell_is_inserted_or_copied(open_notebook):
    page, _ = open_notebook("explain", "%micromegas_login --flow device", WRONG)
    sign_in_by_code(page)
    help_of_error = page.locator(".jp-OutputArea .micromegas-explain")
    help_of_error.wait_for()

    help_of_error.get_by_text("Explain SQL001").click()
    expect(help_of_error.locator("pre")).to_have_text("%%sql --limit 5\nSELECT time, msg\nFROM log_entries")
    help_of_error.get_by_role("button", name="Insert corrected cell").click()

    expect(help_of_error.get_by_role("status")).to_have_text("Inserted below.")
    inserted = page.locator(".jp-Notebook .jp-Cell.jp-mod-active .cm-line")
    expect(inserted).to_have_text(["%%sql --limit 5", "SELECT time, msg", "FROM log_entries"])


def test_a_denied_sign_in_leaves_the_reason_and_a_button_in_the_cell(open_notebook):
    page, _ = open_notebook("deny", "%sql SELECT 1 AS one")
    card = page.locator(".jp-OutputArea .micromegas-card").first
    with page.context.expect_page() as opened:
        card.get_by_role("link", name=re.compile("^Sign in")).click()
    provider = opened.value
    provider.get_by_role("button", name=re.compile("Alice")).click()
    provider.get_by_role("button", name="Deny").click()
    expect(provider.locator("main")).to_contain_text("You can close this tab.")

    expect(card).to_contain_text("Not signed in to Micromegas demo.")
    expect(card.get_by_role("button")).to_have_text(["Sign in"])
