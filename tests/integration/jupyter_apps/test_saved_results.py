"""A result that has a widget and HTML: the widget while its kernel lives, the HTML that is saved before and after."""

import json
import re

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
    notebook.page.get_by_role("menuitem", name="Kernel", exact=True).click()
    notebook.page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Restart Kernel…$")).click()
    notebook.page.get_by_role("button", name="Confirm Kernel Restart").click()
    # The kernel that the page then finds knows nothing of the widget.
    notebook.wait_until_idle()
    notebook.page.reload()
    notebook.wait_until_idle()

    expect(saved).to_be_visible()
    expect(live).to_have_count(0)
    for text in ("Loading widget", "Error displaying widget"):
        expect(notebook.page.get_by_text(text)).to_be_hidden()
