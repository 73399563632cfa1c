"""Events by which a result's widget asks JupyterLab for a new cell, and to save its chart."""

import base64
import json
import re
import struct
import zlib

import pytest
from playwright.sync_api import expect

from tests.integration.browser.conftest import notebook_opener
from tests.integration.browser.looks import save

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

SHOW = """import pyarrow as pa
from micromegas_jupyter.notebook.query_result import QueryResult
QueryResult(pa.table({"n": [1, 2]}))"""
DISPATCH = """(target, [name, detail]) => {
    const event = new CustomEvent(name, { detail, bubbles: true, cancelable: true });
    return !target.dispatchEvent(event);
}"""
SOURCE = "%%sql\nSELECT 'été' AS \"a\nb\", 1 <> 2" + ", 'one more column'" * 20


def png(pixels):
    """Return a PNG of a row of gray pixels, without compression."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", pixels, 1, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(pixels + 1), 0)), (b"IEND", b"")]
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)).decode()


PICTURE = png(100)
SVG = base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>").decode()


@pytest.fixture(scope="module")
def notebook(lab, tmp_path_factory):
    with notebook_opener(lab, tmp_path_factory.mktemp("config")) as open_notebook:
        page, path = open_notebook("new-cells", SHOW, "'last'")
        page.locator(".micromegas-grid").wait_for()
        yield page, path


def sources(page):
    return page.evaluate(
        "() => [...jupyterapp.shell.currentWidget.content.model.cells].map(each => each.sharedModel.getSource())"
    )


def dispatch(page, selector, name, detail):
    return page.locator(selector).first.evaluate(DISPATCH, [name, detail])


def test_the_buttons_of_a_small_table_need_no_line(notebook):
    page, _ = notebook
    grid = page.locator(".micromegas-grid")
    bar = grid.locator("> .micromegas-grid-bar")

    page.mouse.move(0, 0)
    expect(bar).to_have_css("opacity", "0")
    assert grid.locator(".micromegas-grid-scroller").bounding_box()["y"] == grid.bounding_box()["y"]

    grid.hover()
    expect(bar).to_have_css("opacity", "1")
    table, buttons = grid.get_by_role("grid").bounding_box(), bar.bounding_box()
    assert table["x"] + table["width"] <= buttons["x"]
    assert buttons["x"] + buttons["width"] <= grid.bounding_box()["x"] + grid.bounding_box()["width"]
    assert buttons["height"] < table["height"]


def test_a_cell_that_a_widget_requests_is_inserted_below_its_own_and_not_run(notebook):
    page, _ = notebook
    before = sources(page)

    assert dispatch(page, ".micromegas-grid", "micromegas:new-cell", {"source": SOURCE})

    below = before.index(SHOW) + 1
    assert sources(page) == [*before[:below], SOURCE, *before[below:]]
    expect(page.locator(".jp-Notebook .jp-Cell.jp-mod-active .cm-content")).to_contain_text("SELECT 'été'")
    editor = page.locator(".jp-Notebook .jp-Cell.jp-mod-active .cm-scroller")
    expect(page.locator(".jp-Notebook .jp-Cell.jp-mod-active .cm-editor.cm-focused")).to_be_visible()
    assert editor.evaluate("each => [each.scrollLeft, each.scrollWidth > each.clientWidth]") == [0, True]
    new = "() => jupyterapp.shell.currentWidget.content.activeCell.model.toJSON()"
    assert (page.evaluate(new)["execution_count"], page.evaluate(new)["outputs"]) == (None, [])


def test_a_cell_requested_outside_of_the_notebook_is_inserted_below_the_active_one(notebook):
    page, _ = notebook
    before = sources(page)
    page.evaluate("() => { jupyterapp.shell.currentWidget.content.activeCellIndex = 1; }")

    assert dispatch(page, "body", "micromegas:new-cell", {"source": "1"})

    assert sources(page) == [*before[:2], "1", *before[2:]]


@pytest.mark.parametrize("source", ["SELECT 1\r!rm", "\tSELECT", "\x1b[2J", "a\x85b", 7, None, "x" * 200_001])
def test_a_cell_that_is_not_plain_text_is_rejected(notebook, source):
    page, _ = notebook
    before = sources(page)

    assert not dispatch(page, ".micromegas-grid", "micromegas:new-cell", {"source": source})

    assert sources(page) == before


def test_only_a_small_png_is_saved_above_the_table(notebook):
    page, path = notebook

    def saved():
        save(page)
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        (data,) = [each["data"] for cell in cells for each in cell["outputs"] if "text/html" in each.get("data", {})]
        return "".join(data["text/html"])

    table = saved()
    for data in (SVG, png(60_000), "not base64", PICTURE[4:], 7):
        dispatch(page, ".micromegas-grid", "micromegas:picture", {"data": data, "text": ""})
    assert saved() == table

    for text in ("one", '"><script>alert(1)</script>'):
        dispatch(page, ".micromegas-grid", "micromegas:picture", {"data": PICTURE, "text": text})

    html = saved()
    assert html.endswith(table)
    assert html.startswith('<img data-micromegas-chart="" alt="&quot;')  # the newest only
    assert "<script>" not in re.sub('alt="[^"]*"', "", html)
    assert f"data:image/png;base64,{PICTURE}" in html


CONFIG = re.compile(r'(id="jupyter-config-data" type="application/json">)(.*?)(</script>)', re.DOTALL)
TRACKER = "@jupyterlab/notebook-extension:tracker"


def test_an_application_without_notebooks_logs_no_error_about_the_extension(lab, notebook):
    logged = []

    def disable_tracker(route):
        response = route.fetch()
        before, config, after = CONFIG.search(response.text()).groups()
        config = json.loads(config)
        config["disabledExtensions"] = [*config.get("disabledExtensions", []), TRACKER]
        route.fulfill(
            response=response, body=CONFIG.sub(lambda _: before + json.dumps(config) + after, response.text())
        )

    page = lab.context.new_page()
    page.on("console", lambda message: logged.append(message.text))
    page.route(re.compile(r"/lab/workspaces/untracked"), disable_tracker)
    page.goto(notebook[0].url.partition("/lab")[0] + "/lab/workspaces/untracked")
    page.wait_for_function("() => window.jupyterapp?.started")
    page.evaluate("() => jupyterapp.started")

    assert page.evaluate("name => jupyterapp.isPluginActivated(name)", "micromegas-jupyter:cells")
    assert not page.evaluate("name => jupyterapp.hasPlugin(name)", TRACKER)
    # JupyterLab also reports plugins that take long on a busy machine.
    assert [each for each in logged if "micromegas" in each and "ms to activate" not in each] == []
    page.close()
