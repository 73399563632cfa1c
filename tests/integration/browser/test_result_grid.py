"""A result's grid in JupyterLab and Notebook 7: everything by mouse and by keyboard, in both themes, when narrow."""

import io
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import expect

from tests.integration.browser.conftest import notebook_opener
from tests.integration.browser.looks import DARKEST, check_accessible, choose_theme, luminance, save

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

REPOSITORY = Path(__file__).parents[3]
MAKE = f"""import sys; sys.path.insert(0, {str(REPOSITORY)!r})
from tests.fakes.result_rows import many_rows
from micromegas_jupyter.notebook.results import grid
from micromegas_jupyter.notebook.query_result import QueryResult
rows = many_rows()"""
SHOW = "QueryResult(rows)"
FORGET = """import time
grid._held.clear()
print("forgotten at", time.monotonic_ns())"""
MAX_SAVED_BYTES = 60_000
ALL = "1,000,000"
NAMES = ["time", "level", "msg", "process_id", "hash_of", "size_bytes", "value", "price", "ok", "json", "tags", "day"]


def pytest_generate_tests(metafunc):
    """Use the grid in JupyterLab; in the long run, in Notebook 7, too."""
    marks = metafunc.definition.iter_markers("parametrize")
    if "notebook" in metafunc.fixturenames and not any(mark.args[0] == "notebook" for mark in marks):
        apps = ["lab", "notebook"] if metafunc.config.getoption("--long") else ["lab"]
        metafunc.parametrize("notebook", apps, indirect=True, scope="module")


@pytest.fixture(scope="module")
def notebook(request, lab, tmp_path_factory):
    """A notebook with a grid of a million rows: its page and its file."""
    config = tmp_path_factory.mktemp("config")
    with notebook_opener(lab, config, app=request.param) as open_notebook:
        page, path = open_notebook(f"grid-{request.param}", MAKE, FORGET, SHOW)
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.locator(".micromegas-grid").wait_for()
        yield page, path


only_in_lab = pytest.mark.parametrize("notebook", ["lab"], indirect=True)


@pytest.fixture
def page(notebook):
    return notebook[0]


@pytest.fixture
def grid(page):
    """The grid as it is at first: its cell has been run again."""
    page.evaluate("document.querySelectorAll('.micromegas-grid').forEach(each => (each.dataset.old = ''))")
    page.locator(".jp-Notebook .cm-content").filter(has_text=re.compile(r"^QueryResult\(rows\)$")).click()
    page.keyboard.press("Control+Enter")
    found = page.locator(".micromegas-grid:not([data-old])")
    expect(cell(found, 1, "msg")).to_have_text("null")
    return found


def header(grid, name):
    return grid.get_by_role("columnheader").filter(has=grid.page.get_by_role("button", name=name, exact=True))


def name_button(grid, name):
    return header(grid, name).locator(".micromegas-grid-name")


def cell(grid, line, name):
    """Return the cell of a column in a line, from 1, of those in sight."""
    return grid.locator(f"tbody tr:nth-child({line}) td[aria-colindex='{NAMES.index(name) + 2}']")


def filter_of(grid, name):
    return grid.get_by_role("searchbox", name=f"Filter {name}", exact=True)


def status(grid):
    return grid.get_by_role("status")


def clipboard(page):
    return page.evaluate("navigator.clipboard.readText()")


def test_a_million_rows_are_scrolled_and_sorted_by_mouse(page, grid):
    expect(status(grid)).to_have_text(f"rows 1–15 of {ALL} · 12 columns")
    assert header(grid, "time").locator(".micromegas-grid-type").inner_text() == "timestamp (UTC)"
    assert header(grid, "msg").locator(".micromegas-grid-type").inner_text() == "text · 2.0% null"
    expect(header(grid, "level")).to_contain_text("INFO")
    expect(header(grid, "process_id").get_by_role("img")).to_be_visible()

    grid.locator(".micromegas-grid-scroller").hover()
    page.mouse.wheel(0, 24 * 400)
    expect(status(grid)).not_to_have_text(re.compile("^rows 1–"))
    page.mouse.wheel(0, 10**9)
    expect(status(grid)).to_have_text(f"rows 999,986–{ALL} of {ALL} · 12 columns")
    expect(cell(grid, 15, "msg")).to_have_text("request 4999 took 26 ms")

    name_button(grid, "level").click()
    expect(header(grid, "level")).to_have_attribute("aria-sort", "ascending")
    expect(status(grid)).to_contain_text("rows 1–15 of")
    expect(cell(grid, 1, "level")).to_have_text("DEBUG")
    name_button(grid, "msg").click(modifiers=["Shift"])
    name_button(grid, "msg").click(modifiers=["Shift"])
    expect(header(grid, "msg")).to_have_attribute("aria-sort", "descending")
    expect(name_button(grid, "msg")).to_contain_text("▼2")
    expect(cell(grid, 1, "msg")).to_have_text("request 999 took 96 ms")


FILTERS = (
    ("value", "10..<20", "40"), ("level", "!= INFO", "800,000"), ("msg", "/^request 1?7 /", "400"),
    ("time", "< 2026-11-27 17:20:01", "1"), ("tags", "!=", ALL),
)  # fmt: skip


def test_a_filter_knows_the_type_of_its_column(page, grid):
    for name, typed, rows in FILTERS:
        filter_of(grid, name).fill(typed)

        expected = f" of {rows} · 12 columns" if rows == ALL else f" of {rows} that match, {ALL} in all · 12 columns"
        expect(status(grid)).to_have_text(re.compile(f"^rows .*{re.escape(expected)}$"))

        filter_of(grid, name).fill("")
        expect(status(grid)).to_have_text(f"rows 1–15 of {ALL} · 12 columns")


def test_filters_work_together_and_a_refused_one_says_what_would_fit(page, grid):
    filter_of(grid, "level").fill("= INFO")
    filter_of(grid, "value").fill("< 5")
    expect(status(grid)).to_have_text(f"rows 1–4 of 4 that match, {ALL} in all · 12 columns")

    filter_of(grid, "value").fill("< five")
    expect(grid.get_by_role("alert")).to_contain_text('"< five" does not fit this column. Try: > 62.50, 62.50..187.50.')
    expect(filter_of(grid, "value")).to_have_attribute("aria-invalid", "true")
    expect(status(grid)).to_contain_text("of 4 that match")

    filter_of(grid, "value").fill("")
    expect(filter_of(grid, "value")).to_have_attribute("aria-invalid", "false")
    expect(status(grid)).to_contain_text("of 200,000 that match")
    filter_of(grid, "level").fill("nothing like it")
    expect(status(grid)).to_have_text(f"no rows that match, {ALL} in all · 12 columns")


def test_columns_are_resized_hidden_and_shown_by_mouse(page, grid):
    time = header(grid, "time")
    width = time.bounding_box()["width"]
    grip = time.locator(".micromegas-grid-grip").bounding_box()
    page.mouse.move(grip["x"] + 3, grip["y"] + 20)
    page.mouse.down()
    page.mouse.move(grip["x"] + 63, grip["y"] + 20)
    page.mouse.up()
    assert abs(time.bounding_box()["width"] - width - 60) < 2
    time.locator(".micromegas-grid-grip").dblclick()
    assert time.bounding_box()["width"] == width

    header(grid, "level").hover()
    grid.get_by_role("button", name="Hide level").click()
    expect(status(grid)).to_contain_text("11 of 12 columns")
    assert header(grid, "level").count() == 0
    grid.get_by_role("button", name="Show 1 hidden").click()
    expect(header(grid, "level")).to_be_visible()


def test_cells_and_rows_are_selected_copied_and_looked_at_by_mouse(page, grid):
    cell(grid, 2, "level").hover()
    page.mouse.down()
    cell(grid, 3, "msg").hover()
    page.mouse.up()
    grid.get_by_role("button", name="Copy", exact=True).click()
    expect(grid.get_by_role("alert")).to_have_text("2 rows copied.")
    assert clipboard(page) == "level\tmsg\nWARN\trequest 1 took 1 ms\nERROR\trequest 2 took 2 ms"

    grid.locator("tbody th").nth(1).click()
    grid.get_by_role("button", name="Copy", exact=True).click()
    expect(grid.get_by_role("alert")).to_have_text("1 row copied.")
    head, row = (line.split("\t") for line in clipboard(page).split("\n"))
    assert (len(head), head[-1], row[-1], row[-2]) == (12, "day", "1970-01-02", '{"a": 1, "b": 0.5}')
    assert re.fullmatch(r"2026-11-27 17:20:0\d\.\d{9}Z", row[0])

    cell(grid, 2, "tags").dblclick()
    detail = grid.get_by_role("group", name="Whole value")
    expect(detail.locator("pre")).to_have_text('{\n  "a": 1,\n  "b": 0.5\n}', use_inner_text=True)
    detail.get_by_role("button", name="Copy value").click()
    expect(grid.get_by_role("alert")).to_have_text("Value copied.")
    assert json.loads(clipboard(page)) == {"a": 1, "b": 0.5}
    detail.get_by_role("button", name="Close").click()
    expect(detail).to_be_hidden()


def test_the_rows_that_match_are_downloaded(page, grid):
    header(grid, "time").hover()
    grid.get_by_role("button", name="Hide time").click()
    filter_of(grid, "value").fill("< 1")
    expect(status(grid)).to_contain_text("of 4 that match")

    read = {"CSV": pa.csv.read_csv, "Parquet": pq.read_table, "Arrow": lambda file: pa.ipc.open_file(file).read_all()}
    for file_format, read_table in read.items():
        with page.expect_download() as download:
            grid.get_by_role("button", name=f"Download {file_format}").click()

        table = read_table(io.BytesIO(Path(download.value.path()).read_bytes()))
        assert re.fullmatch(rf"result-\d+-\d+\.{file_format.lower()}", download.value.suggested_filename)
        assert (table.num_rows, table.column_names[0], table.num_columns) == (4, "level", 11)
        assert table["value"].to_pylist() == [0, 0.25, 0.5, 0.75]


def test_all_rows_are_saved_or_downloaded_with_progress_by_keyboard(page, grid, notebook, request):
    where = grid.get_by_role("combobox", name="Export to")
    where.focus()
    page.keyboard.press("ArrowDown")
    expect(where).to_have_value("folder")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    bar = grid.get_by_role("progressbar", name="Export")
    expect(bar).to_be_visible()
    expect(grid).to_contain_text(re.compile(r"[\d,]+ of 1,000,000 rows"))
    page.keyboard.press("Enter")  # the focus is on Cancel
    expect(grid.get_by_role("alert")).to_have_text("Export canceled.")
    expect(bar).to_be_hidden()
    assert page.evaluate("document.activeElement.textContent") == "↓ CSV"

    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    saved = re.compile(r"^Saved in the notebook's folder: (result-[\d-]+\.parquet)$")
    expect(grid.get_by_role("alert")).to_have_text(saved)
    name = saved.match(grid.get_by_role("alert").inner_text())[1]
    (written,) = notebook[1].parent.glob("result-[0-9]*")
    assert (written.name, pq.read_metadata(written).num_rows) == (name, 1_000_000)
    written.unlink()
    assert list(notebook[1].parent.glob(".result-*")) == []

    # A fifth of the rows; `--long` takes all of them.
    is_long = request.config.getoption("--long")
    if not is_long:
        filter_of(grid, "level").fill("= INFO")
        expect(status(grid)).to_contain_text("of 200,000 that match")
    where.select_option("Download")
    with page.expect_download() as download:
        grid.get_by_role("button", name="Download CSV").click()
    table = pa.csv.read_csv(download.value.path())
    assert (table.num_rows, table.num_columns) == (1_000_000 if is_long else 200_000, 12)
    assert table["value"][-1].as_py() > 999_990 / 4


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def focused(page):
    return page.evaluate("document.activeElement.closest('th, td')?.getAttribute('aria-colindex')")


def test_the_keyboard_does_it_all_and_jupyterlab_takes_no_key_that_is_typed(page, grid):
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    grid.get_by_role("button", name="Download Arrow").focus()
    press(page, "Tab")
    assert page.evaluate("document.activeElement.textContent").startswith("time")

    press(page, "ArrowRight", "Enter")
    expect(header(grid, "level")).to_have_attribute("aria-sort", "ascending")
    press(page, "ArrowRight", "Shift+Enter")
    expect(header(grid, "msg")).to_have_attribute("aria-sort", "ascending")
    expect(name_button(grid, "level")).to_contain_text("▲1")
    width = header(grid, "msg").bounding_box()["width"]
    press(page, "Alt+ArrowRight")
    assert header(grid, "msg").bounding_box()["width"] > width
    press(page, "Delete")
    expect(status(grid)).to_contain_text("11 of 12 columns")
    press(page, "End", "Home", "ArrowRight", "/")
    page.keyboard.type("add")
    expect(status(grid)).to_contain_text("no rows that match")
    press(page, "Control+a")
    page.keyboard.type("= debug")
    press(page, "Control+a")
    page.keyboard.type("= DEBUG")
    expect(status(grid)).to_contain_text("of 200,000 that match")

    press(page, "ArrowDown", "Control+End")
    expect(status(grid)).to_contain_text("rows 199,986–200,000 of")
    press(
        page, "Control+Home", "ArrowDown", "ArrowDown", "ArrowRight", "Shift+ArrowRight", "Shift+ArrowDown", "Control+c"
    )
    expect(grid.get_by_role("alert")).to_have_text("2 rows copied.")
    assert [line.split("\t")[0] for line in clipboard(page).split("\n")] == ["level", "DEBUG", "DEBUG"]
    press(page, "Shift+Space", "Control+c")
    page.wait_for_function("async () => (await navigator.clipboard.readText()).split('\\t').length > 30")
    press(page, "End", "ArrowLeft", "Enter")
    detail = grid.get_by_role("group", name="Whole value")
    expect(detail).to_contain_text('"a":')
    press(page, "Escape")
    expect(detail).to_be_hidden()
    assert focused(page) == "12"
    press(page, "PageDown", "PageDown", "Control+ArrowUp", "ArrowUp")
    assert page.evaluate("document.activeElement.textContent").startswith("tags")
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells


def test_a_page_over_http_from_another_machine_copies_too(lab, tmp_path):
    with notebook_opener(lab, tmp_path, app="notebook", host="jupyter.example") as open_notebook:
        page, _ = open_notebook("remote", MAKE.replace("many_rows()", "many_rows(100)"), SHOW)
        grid = page.locator(".micromegas-grid")
        cell(grid, 2, "level").click()
        assert page.evaluate("[isSecureContext, navigator.clipboard]") == [False, None]

        # Where it is pasted; a filter would change the grid meanwhile.
        page.evaluate("document.body.append(Object.assign(document.createElement('textarea'), {id: 'pasted'}))")
        pasted = page.locator("#pasted")

        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("Control+c")
        expect(grid.get_by_role("alert")).to_have_text("1 row copied.")
        assert focused(page) == "4"
        pasted.focus()
        page.keyboard.press("Control+v")
        expect(pasted).to_have_value(re.compile(r"level\tmsg\s+WARN\trequest 1 took 1 ms\s*"))

        cell(grid, 2, "tags").dblclick()
        grid.get_by_role("button", name="Copy value").click()
        expect(grid.get_by_role("alert")).to_have_text("Value copied.")
        pasted.fill("")
        page.keyboard.press("Control+v")
        expect(pasted).to_have_value(re.compile(r'\{\s+"a": 1,\s+"b": 0.5\s+\}'))

        page.evaluate("document.execCommand = () => false")
        grid.get_by_role("button", name="Copy value").click()
        expect(grid.get_by_role("alert")).to_contain_text("The browser does not let this page copy.")


def test_rows_that_are_no_longer_kept_say_so(page, grid):
    forgotten = page.locator(".jp-OutputArea-output").filter(has_text="forgotten at")
    before = forgotten.inner_text()
    page.locator(".jp-Notebook .cm-content").filter(has_text="forgotten at").click()
    page.keyboard.press("Control+Enter")
    expect(forgotten).not_to_have_text(before)

    name_button(grid, "value").click()

    expect(grid.get_by_role("alert")).to_have_text("These rows are no longer available. Run the cell again.")
    expect(cell(grid, 1, "value")).to_have_text("0.00")


@only_in_lab  # its menu chooses the theme
def test_what_a_filter_leaves_is_sorted(page, grid, save_screenshot):
    choose_theme(page, "JupyterLab Light")
    filter_of(grid, "level").fill("/^(WARN|ERROR)$/")
    expect(status(grid)).to_contain_text("of 400,000 that match")
    name_button(grid, "msg").click()

    expect(header(grid, "msg")).to_have_attribute("aria-sort", "ascending")
    expect(cell(grid, 1, "msg")).to_have_text("request 1 took 0 ms")
    save_screenshot(grid, "grid-light")


@only_in_lab  # its menu chooses the theme
def test_a_grid_suits_both_themes_everybody_and_a_narrow_window(page, grid):
    for theme, is_dark in (("JupyterLab Dark", True), ("JupyterLab Light", False)):
        choose_theme(page, theme)
        cell(grid, 2, "level").click()
        page.keyboard.press("Shift+ArrowDown")
        cell(grid, 2, "tags").dblclick()
        expect(grid.get_by_role("group", name="Whole value")).to_be_visible()
        grid.scroll_into_view_if_needed()
        assert (luminance(cell(grid, 1, "msg")) < DARKEST) is is_dark
        check_accessible(page, ".micromegas-grid", texts=50)

    page.set_viewport_size({"width": 560, "height": 900})
    grid.scroll_into_view_if_needed()
    assert grid.evaluate("each => each.scrollWidth <= each.clientWidth")
    page.set_viewport_size({"width": 1280, "height": 1000})


@only_in_lab  # its tab says when a notebook is saved
def test_a_saved_result_is_small(page, notebook, grid):
    save(page)

    cells = json.loads(notebook[1].read_text(encoding="utf-8"))["cells"]
    (output,) = [output for each in cells for output in each["outputs"] if "text/html" in output.get("data", {})]
    assert len(json.dumps(output)) < MAX_SAVED_BYTES
