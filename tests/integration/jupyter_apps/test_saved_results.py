"""A result that has a widget and HTML: the widget while its kernel lives, the HTML that is saved before and after."""

import json

import pytest
from playwright.sync_api import expect

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

RESULT = "application/vnd.micromegas.result+json"
SHOW_RESULT = f"""
import anywidget
from IPython.display import display

class Grid(anywidget.AnyWidget):
    _esm = "export default {{ render({{ el }}) {{ el.innerHTML = '<div class=micromegas-grid>live grid</div>' }} }}"

bundle, _ = Grid()._repr_mimebundle_()
display({{**bundle, {RESULT!r}: {{}}, "text/html": "<p>saved <b>table</b></p>"}}, raw=True)
"""


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_a_result_is_live_with_its_kernel_and_readable_without(open_notebook, app):
    notebook = open_notebook(app, "saved-result", SHOW_RESULT)
    live, saved = (notebook.page.get_by_text(text, exact=True) for text in ("live grid", "saved table"))

    notebook.run_all()
    expect(live).to_be_visible()
    expect(saved).to_be_hidden()

    output = json.loads(notebook.save())["cells"][1]["outputs"][0]["data"]
    assert {RESULT, "text/html"} <= output.keys()
    # The kernel that opens with the page knows no widget of the one before.
    restart(notebook)
    notebook.page.reload()
    notebook.wait_until_idle()

    expect(saved).to_be_visible()
    expect(notebook.page.locator("b", has_text="table")).to_be_visible()
    for text in ("live grid", "Loading widget", "Error displaying widget"):
        assert not notebook.page.get_by_text(text).is_visible()


def restart(notebook):
    notebook.choose("Kernel", "Restart Kernel…")
    notebook.page.get_by_role("button", name="Confirm Kernel Restart").or_(
        notebook.page.get_by_role("button", name="Restart", exact=True)
    ).click()
    notebook.wait_until_idle()
