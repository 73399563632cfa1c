"""The side panel in JupyterLab: tables, the history of queries, and running queries, in both themes and by keyboard."""

import re

import pytest
from playwright.sync_api import expect

from tests.integration.browser.conftest import notebook_opener
from tests.integration.browser.looks import DARKEST, check_accessible, choose_theme, luminance, sign_in_by_code

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

SCRIPT = "<img src=x onerror=window.ran=1>"
FOLDER = f"""from pathlib import Path
Path("hostile").mkdir(exist_ok=True)
_ = Path("hostile", "{SCRIPT}.csv").write_text('"{SCRIPT}",n\\n1,2\\n')"""
SERVE = "%micromegas_serve hostile"
QUERY = f"%%sql\nSELECT 7 AS n, '{SCRIPT}' AS word"
CONNECT = """import os
get_ipython().run_line_magic("micromegas_connect", f"{os.environ['MICROMEGAS_ANALYTICS_URI']} --as other")"""
LONG = "%%sql --connection other\nSELECT count(*) FROM generate_series(1, 100000000) a, generate_series(1, 1000000) b"


@pytest.fixture(scope="module")
def page(lab, tmp_path_factory):
    """A notebook with a signed-in user, who has run a query, and the panel."""
    with notebook_opener(lab, tmp_path_factory.mktemp("config")) as open_notebook:
        page, _ = open_notebook("panel", "%micromegas_login --flow device", QUERY, FOLDER, CONNECT, LONG, SERVE)
        sign_in_by_code(page)
        expect(page.locator(".jp-OutputArea-output", has_text="⏳").first).to_be_visible()
        yield page


@pytest.fixture
def panel(page):
    side = page.locator(".micromegas-panel")
    if not side.is_visible():
        page.get_by_role("tab", name="Micromegas: tables and queries").click()
    return side


def sources(page):
    return page.evaluate(
        "() => [...jupyterapp.shell.currentWidget.content.model.cells].map(each => each.sharedModel.getSource())"
    )


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def test_a_running_query_is_canceled_while_its_cell_runs(page, panel):
    panel.get_by_role("heading", name="Running on the server").click()
    running = panel.get_by_role("list", name="Running queries")
    expect(running).to_contain_text("generate_series(1, 100000000)")
    expect(running).to_contain_text("alice")

    running.get_by_role("button", name=re.compile("^Cancel query")).focus()
    press(page, "Enter")

    expect(panel.get_by_role("status")).to_have_text("The query was canceled.")
    expect(page.locator(".jp-OutputArea-output", has_text="✗").first).to_be_visible()
    expect(panel).to_contain_text("No query is running on the server.")
    panel.get_by_role("heading", name="Running on the server").click()


def test_tables_and_columns_are_found_and_inserted_by_keyboard(page, panel):
    panel.get_by_role("searchbox", name="Find tables and columns").fill("log_entries")
    tables = panel.get_by_role("list", name="Tables", exact=True)
    expect(tables).to_contain_text("Log entries that programs sent")
    column = panel.get_by_role("button", name="Insert the name target")
    expect(panel.get_by_role("list", name="Columns of log_entries")).to_contain_text("Module or logger")
    before = sources(page)

    panel.get_by_role("combobox", name="Connection").select_option("other")
    panel.get_by_role("button", name="Preview log_entries in a new cell").focus()
    press(page, "Enter")
    expect(page.locator(".jp-Notebook .jp-Cell.jp-mod-active")).to_contain_text("SELECT * FROM log_entries LIMIT 100")
    column.focus()
    press(page, "Enter")

    (new,) = [each for each in sources(page) if each not in before]
    assert new == "%%sql --connection other\nSELECT * FROM log_entries LIMIT 100target"
    active = "() => jupyterapp.shell.currentWidget.content.activeCell.model.toJSON().execution_count"
    assert page.evaluate(active) is None


def test_a_past_query_becomes_a_new_cell(page, panel):
    history = panel.get_by_role("list", name="Queries of this notebook")
    first = history.get_by_role("listitem").filter(has_text="SELECT 7 AS n")
    expect(first).to_contain_text("1 · done · 1 row")
    before = sources(page)

    first.get_by_role("button").focus()
    press(page, "Enter")

    expect(page.locator(".jp-Notebook .jp-Cell.jp-mod-active")).to_contain_text("SELECT 7 AS n")
    assert len(sources(page)) == len(before) + 1
    assert sources(page).count(QUERY) == 2


def test_the_panel_suits_both_themes_and_everybody(page, panel):
    panel.get_by_role("searchbox", name="Find tables and columns").fill("log_entries")
    for theme, is_dark in (("JupyterLab Dark", True), ("JupyterLab Light", False)):
        choose_theme(page, theme)
        assert (luminance(panel) < DARKEST) is is_dark
        check_accessible(page, ".micromegas-panel", texts=20)


def test_names_and_statements_of_others_run_no_script(page, panel):
    page.evaluate("window.ran = undefined")  # other tests use the same page
    page.locator(".jp-Notebook .cm-content").filter(has_text=SERVE).click()
    press(page, "Control+Enter")
    expect(page.locator(".jp-OutputArea-output", has_text="1 table")).to_be_visible()
    panel.get_by_role("button", name="Refresh").click()
    panel.get_by_role("combobox", name="Connection").select_option("local")
    panel.get_by_role("searchbox", name="Find tables and columns").fill("onerror")

    expect(panel.get_by_role("button", name=f"Insert the name {SCRIPT}").first).to_be_visible()

    expect(panel.get_by_role("list", name="Queries of this notebook")).to_contain_text(SCRIPT)
    assert page.locator(".micromegas-panel img").count() == 0
    assert page.evaluate("window.ran") is None
    page.evaluate("html => { document.querySelector('.micromegas-panel pre').innerHTML = html; }", SCRIPT)
    page.wait_for_function("() => window.ran === 1")
