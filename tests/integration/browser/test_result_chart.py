"""The chart of a result in JupyterLab: brush, bars, top values, the cell's menu, new cells, both themes, the file."""

import json
import re
from base64 import b64decode
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError
from playwright.sync_api import expect

from tests.integration.browser.conftest import notebook_opener
from tests.integration.browser.looks import DARKEST, check_accessible, choose_theme, luminance, save

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

REPOSITORY = Path(__file__).parents[3]
SHOW = f"""import sys; sys.path.insert(0, {str(REPOSITORY)!r})
import numpy as np, pyarrow as pa
from micromegas_jupyter.notebook.results.grid import CellSource
from micromegas_jupyter.notebook.query_result import QueryResult
n = np.arange(3000)
rows = pa.table({{
    "time": pa.array(1_793_491_200_000 + n * 1000, pa.timestamp("ms", "UTC")),
    "service": np.array(["api", "O'Neil", "<b>web</b>"])[n % 3],
    "took": np.exp(np.sin(n / 300) + (n % 7) / 3),
}})
result = QueryResult(rows, source=CellSource("%%sql --begin 1h", "SELECT * FROM requests -- all"))
result.open_chart(result.chart("bar", x="time", color="service", agg="count"))
result"""
RUN = "window.ran=(window.ran||0)+1"
PAYLOADS = (
    f"<img src=x onerror={RUN}>",
    f"</td></table></script><script>{RUN}</script><svg onload={RUN}>",
    f'"]);{RUN};(["',
    f"constructor.constructor('{RUN}')()",
    f"javascript:{RUN}",
)
HOSTILE = f"""payloads = {PAYLOADS!r}
columns = {{text: np.array(payloads)[(n + at) % 5] for at, text in enumerate(payloads)}}
columns |= {{"value": n % 9, "unit": np.array(payloads)[n % 5], payloads[0] + "2": n}}
shown = QueryResult(pa.table(columns), source=CellSource("%%sql", "SELECT 1"))
shown.open_chart(shown.chart("bar", x=payloads[0], y=payloads[0] + "2", color=payloads[1], agg="sum"))
shown"""
HOVER_TRIES, HOVER_MILLISECONDS = 57, 500
MAX_IMAGE_BYTES = 60_000


@pytest.fixture(scope="module")
def notebook(lab, tmp_path_factory):
    with notebook_opener(lab, tmp_path_factory.mktemp("config")) as open_notebook:
        page, path = open_notebook("result-chart", SHOW)
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.locator(".micromegas-chart canvas").wait_for()
        yield page, path


def status_of(grid):
    return grid.locator(".micromegas-grid-status")


def grid_of(page):
    return page.locator(".micromegas-grid").first


def test_one_selection_for_chart_and_rows(notebook):
    page, _ = notebook
    grid = grid_of(page)
    canvas = grid.locator(".micromegas-chart canvas")
    canvas.scroll_into_view_if_needed()
    top = grid.locator(".micromegas-grid-scroller").bounding_box()

    # The chart is as wide as its frame.
    frame = grid.locator(".micromegas-chart-canvas").bounding_box()
    assert frame["width"] - canvas.bounding_box()["width"] < 12
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 150)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 150, steps=4)
    page.mouse.up()
    time_filter = grid.get_by_label("Filter time")
    expect(time_filter).to_have_value(re.compile(r"^2026-11-01 00:\d\d:\d\d\.\.<2026-11-01 00:\d\d:\d\d$"))
    expect(status_of(grid)).to_contain_text("that match, 3,000 in all")
    assert grid.locator(".micromegas-grid-scroller").bounding_box() == top

    # Top values and bars filter, and the chart follows.
    grid.locator(".micromegas-grid-top-value").filter(has_text="O'Neil").click()
    expect(grid.get_by_label("Filter service")).to_have_value("""= "O'Neil\"""")
    grid.get_by_role("button", name="Copy as SQL").click()
    source = page.locator(".jp-Notebook .jp-Cell").nth(3).locator(".cm-content")
    expect(source).to_contain_text("""AND "service" = 'O''Neil'""")
    expect(source).to_contain_text("SELECT * FROM requests -- all")
    assert page.locator(".jp-Notebook .jp-Cell").nth(3).locator(".jp-InputPrompt").inner_text() == "[ ]:"
    grid.get_by_role("button", name="Clear filters").click()
    expect(status_of(grid)).to_contain_text("of 3,000")


def test_the_keyboard_selects_like_the_mouse(notebook):
    page, _ = notebook
    grid = grid_of(page)
    time_filter = grid.get_by_label("Filter time")
    grid.get_by_role("gridcell").first.click()
    page.keyboard.press("Shift+F10")
    expect(grid.get_by_role("menuitem")).to_have_count(5)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(time_filter).to_have_value("2026-10-31 23:59:00..2026-11-01 00:01:00")
    expect(status_of(grid)).to_contain_text("of 61 that match")
    grid.get_by_role("button", name="Clear filters").click()
    grid.locator("summary").focus()
    page.keyboard.press("Enter")
    grid.get_by_role("rowheader").get_by_role("button").first.focus()
    page.keyboard.press("Enter")
    expect(status_of(grid)).to_contain_text("that match")
    assert grid.locator("b").filter(has_text="web").count() == 0
    grid.get_by_role("button", name="Clear filters").click()


def test_a_chart_is_written_into_a_cell_and_into_the_file_in_both_themes(notebook):
    page, path = notebook
    grid = grid_of(page)
    grid.get_by_label("Log").select_option("y")
    grid.get_by_role("button", name="Chart as cell").click()
    expect(page.locator(".jp-Notebook .jp-Cell").nth(3).locator(".cm-content")).to_contain_text(
        "%%sql --begin 1h --plot bar --x time --color service --agg count --log y"
    )
    grid.get_by_label("Log").select_option("")

    for theme, is_dark in (("JupyterLab Dark", True), ("JupyterLab Light", False)):
        choose_theme(page, theme)
        grid.get_by_role("gridcell").first.click()
        grid.scroll_into_view_if_needed()
        assert (luminance(grid.locator(".micromegas-chart")) < DARKEST) is is_dark
        check_accessible(page, ".micromegas-grid", texts=10)
    page.locator(".jp-Notebook .cm-content").nth(3).click()  # keys in a grid are not those of JupyterLab
    save(page)
    bundle = json.loads(Path(path).read_text())["cells"][2]["outputs"][0]["data"]
    html = "".join(bundle["text/html"])
    assert html.startswith("<img data-micromegas-chart")
    image = html.split("base64,")[1].split('"')[0]
    assert b64decode(image)[:4] == b"\x89PNG"
    assert len(image) <= MAX_IMAGE_BYTES
    assert "<table>" in html


def test_column_names_and_values_run_no_script(open_notebook):
    page, path = open_notebook("hostile", SHOW.rpartition("result = ")[0], HOSTILE)
    page.evaluate("window.ran = undefined")  # other tests show in the same page that their payloads work
    grid = grid_of(page)
    grid.locator(".micromegas-chart canvas").wait_for()
    grid.get_by_text("Numbers of the chart").click()
    grid.locator(".micromegas-chart-table td").first.wait_for()
    frame, tip = grid.locator(".micromegas-chart-canvas"), grid.locator(".micromegas-chart-tip")
    frame.scroll_into_view_if_needed()
    for attempt in range(HOVER_TRIES):  # the chart is drawn again while the pointer moves
        box = frame.bounding_box()
        y = box["y"] + box["height"] * (attempt % 19 + 1) / 20
        page.mouse.move(box["x"] + 0.3 * box["width"], y)
        page.mouse.move(box["x"] + 0.3 * box["width"] + 2, y)
        with suppress(PlaywrightTimeoutError):
            tip.wait_for(timeout=HOVER_MILLISECONDS)
            break
    expect(tip).to_contain_text(re.compile("img|script|constructor"))
    grid.locator(".micromegas-grid-top-value").first.click()
    expect(status_of(grid)).to_contain_text("that match")
    grid.get_by_role("gridcell").first.dblclick()
    expect(grid.get_by_role("group", name="Whole value")).to_be_visible()
    grid.get_by_role("button", name="Copy as SQL").click()
    expect(page.locator(".jp-Notebook .cm-content").last).to_contain_text("window.ran")
    save(page)
    outputs = [each for cell in json.loads(path.read_text())["cells"] for each in cell.get("outputs", ())]
    saved = ["".join(each["data"]["text/html"]) for each in outputs if "constructor" in str(each.get("data"))]
    with page.context.new_page() as exported:
        exported.set_content("".join(saved))
        assert "constructor" in exported.inner_text("body")
        exported.wait_for_load_state("networkidle")
        assert exported.evaluate("window.ran") is None
        exported.set_content(PAYLOADS[0])
        exported.wait_for_function("window.ran")  # the payload works

    assert grid.locator("script, svg[onload], img, a[href^='javascript']").count() == 0
    assert page.evaluate("window.ran ?? null") is None
    page.evaluate("html => document.body.insertAdjacentHTML('beforeend', html)", PAYLOADS[0])
    page.wait_for_function("window.ran")
