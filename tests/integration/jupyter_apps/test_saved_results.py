"""What has a widget and HTML: the widget while its kernel lives, the HTML that is saved before and after."""

import pytest
from playwright.sync_api import expect

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

WIDGETS = (".micromegas-card", ".micromegas-grid")
SAVED = ("Signed in as Alice Martin", "first 20 of 30 rows")


def test_what_is_shown_is_live_with_its_kernel_and_readable_without(open_notebook, open_file, jupyter, app):
    """A copy of the file is opened, whose kernel knows nothing of the widgets."""
    rows = "%%sql\nSELECT value AS n FROM generate_series(1, 30)"
    notebook = open_notebook(app, "saved-result", "%micromegas_login", rows)
    notebook.run_all()
    notebook.sign_in()
    notebook.wait_for_person()
    for widget in reversed(WIDGETS):
        expect(notebook.page.locator(widget)).to_be_visible()
    for text in SAVED:
        expect(notebook.page.locator(".jp-RenderedHTMLCommon:visible").get_by_text(text)).to_have_count(0)
    copy = jupyter.notebooks / f"{app}-copy.ipynb"
    copy.write_text(notebook.save(), encoding="utf-8")

    notebook.page.reload()
    for widget in WIDGETS:
        expect(notebook.page.locator(widget)).to_be_visible()

    page = open_file(app, copy).page

    for text in SAVED:
        expect(page.locator(".jp-RenderedHTMLCommon").get_by_text(text)).to_be_visible()
    for text in (*WIDGETS, "text=Loading widget", "text=Error displaying widget"):
        expect(page.locator(text).locator("visible=true")).to_have_count(0)
