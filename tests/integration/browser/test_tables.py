"""Tables to search and to look into, in JupyterLab; and cells of SQL: Tab, and the editor's SQL mode."""

import re

import pytest
from playwright.sync_api import expect

from micromegas_jupyter.notebook.table_explorer import TablesWidget
from tests.integration.browser.conftest import notebook_opener
from tests.integration.browser.looks import sign_in_by_code

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

SQL = "%%sql\nSELECT * FROM log"

# The widget without a notebook: a model that keeps what it is sent.
DRAW = """async ([source, traits]) => {
  const { default: widget } = await import("data:text/javascript," + encodeURIComponent(source));
  window.sent = [];
  const model = { get: (name) => traits[name], on() {}, off() {}, send: (message) => window.sent.push(message) };
  widget.render({ model, el: document.body });
}"""


@pytest.fixture(scope="module")
def page(browser, demo, tmp_path_factory):
    """A notebook in which somebody is signed in, with the tables and a SQL cell."""
    with notebook_opener(browser, demo, tmp_path_factory.mktemp("config")) as open_notebook:
        page, _ = open_notebook("tables", "%micromegas_login --flow device", "%micromegas_tables", SQL)
        sign_in_by_code(page)
        page.get_by_role("region", name="Tables of").wait_for()
        page.locator("text=/Python 3.*Idle/").first.wait_for()
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        assert "Sign in to continue" not in page.content()
        yield page


@pytest.fixture
def tables(page):
    """The tables; the search is empty again at the end."""
    found = page.get_by_role("region", name="Tables of")
    yield found
    found.get_by_role("searchbox").fill("")


def part(tables, name):
    return tables.locator("details").filter(has=tables.page.locator("summary code", has_text=name))


def test_a_table_that_is_opened_shows_its_columns_and_what_it_holds(page, tables):
    logs = part(tables, "log_entries")
    expect(tables.get_by_text("8 tables of 127.0.0.1")).to_be_visible()
    expect(logs.locator("summary")).to_contain_text("What programs logged")

    # By keyboard alone.
    logs.locator("summary").focus()
    page.keyboard.press("Enter")

    expect(logs.get_by_role("row").filter(has_text="target")).to_contain_text("The module or logger")
    expect(logs.get_by_role("status").filter(has_text=re.compile("Counting…|time from"))).to_be_visible()
    expect(logs).to_contain_text("rows · time from 20")
    logs.get_by_role("button", name="Copy target").click()
    expect(tables.get_by_text("Copied target")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "target"
    assert "rows · time from" not in logs.locator("summary").inner_text()
    logs.locator("summary").click()
    assert "rows · time from 20" in logs.locator("summary").inner_text()


def test_the_search_finds_tables_and_columns_and_jupyterlab_takes_no_key_of_it(page, tables):
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    search = tables.get_by_role("searchbox", name="Search tables and columns")

    search.focus()
    page.keyboard.type("add")
    page.keyboard.press("Control+a")
    page.keyboard.type("realna")

    expect(tables.get_by_text("2 of 8 tables match")).to_be_visible()
    expect(tables.locator("details:visible summary code")).to_have_text(["blocks", "processes"])
    expect(tables.locator("tbody tr:visible")).to_have_count(2)
    # What a search opens is not counted: nobody asked for it.
    expect(tables.get_by_text("Counting…")).to_have_count(0)
    search.fill("")
    expect(tables.locator("details:visible")).to_have_count(8)
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells


def test_whatever_a_server_calls_its_tables_is_a_name_and_can_be_opened(browser):
    names = ["constructor", "__proto__", "<img src=x onerror=document.title='run'>", "toString"]
    traits = {
        "server": "lake",
        "title": "4 tables",
        "search": "",
        "tables": [{"name": name, "remarks": name, "columns": [[name, name, name]]} for name in names],
        "facts": {"toString": "3 rows"},
    }
    page = browser.new_page()

    page.evaluate(DRAW, [str(TablesWidget._esm), traits])
    for summary in page.locator("summary").all():
        summary.click()
    shown = page.locator("summary code").all_text_contents()
    facts = page.locator("[role=status]").all_text_contents()[1:]
    sent = page.evaluate("window.sent")
    images, title = page.locator("img").count(), page.title()
    page.close()

    assert (shown, facts, images, title) == (names, ["Counting…"] * 3 + ["3 rows"], 0, "")
    assert sent == [{"open": name} for name in names[:3]]


def test_tab_completes_a_table_and_then_its_columns(page, tmp_path):
    cell = page.locator(".jp-Notebook .cm-content").filter(has_text="%%sql")
    cell.click()
    page.keyboard.press("Control+End")
    offers = page.locator(".jp-Completer")

    page.keyboard.press("Tab")
    offers.get_by_text("log_entries", exact=True).wait_for()
    page.keyboard.press("Enter")
    expect(cell).to_contain_text("SELECT * FROM log_entries")
    page.keyboard.type(" l WHERE l.")
    page.keyboard.press("Tab")
    offers.get_by_text("target", exact=True).wait_for()
    page.screenshot(path=str(tmp_path / "tab.png"))
    page.keyboard.type("lev")
    page.keyboard.press("Enter")

    expect(cell).to_contain_text("WHERE l.level")


STATEMENT = "SELECT time, 'literal' AS quoted FROM log_entries -- newest"


def test_cells_that_begin_with_the_magic_are_edited_as_sql(open_notebook, tmp_path):
    page, _ = open_notebook(
        "sql-mode",
        f"%%sql errors << --begin 1h\n{STATEMENT}",
        f"\n  %%micromegas_sql\n{STATEMENT} again",
        "SELECT = 'python'  # %%sql",
        "%%sqlish\nSELECT 1",
    )

    def editor(text):
        return page.locator(".jp-Notebook .cm-content").filter(has_text=text)

    def colour(word):
        """Return the colour of a token, which it has only when the editor knows what it is."""
        return editor("errors <<").locator("span", has_text=word).first.evaluate("each => getComputedStyle(each).color")

    modes = {"errors <<": "sql", "%%micromegas_sql": "sql", "'python'": "python", "%%sqlish": "python"}
    for text, mode in modes.items():
        expect(editor(text)).to_have_attribute("data-language", mode)
    page.screenshot(path=str(tmp_path / "sql-mode.png"))
    assert len({colour(word) for word in ("SELECT", "'literal'", "newest")}) == 3
