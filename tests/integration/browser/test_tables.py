"""The list of tables in JupyterLab, and cells of SQL: Tab, and the editor's SQL mode."""

import pytest
from playwright.sync_api import expect

from tests.integration.browser.conftest import notebook_opener
from tests.integration.browser.looks import sign_in_by_code

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

SQL = "%%sql\nSELECT * FROM log"


STATEMENT = "SELECT time, 'literal' AS quoted FROM log_entries -- newest"
# Only looked at: the cell before them fails, which ends Run All.
EDITED = (
    f"%%sql errors << --begin 1h\n{STATEMENT}",
    f"\n  %%micromegas_sql\n{STATEMENT} again",
    "SELECT = 'python'  # %%sql",
    "%%sqlish\nSELECT 1",
)


@pytest.fixture(scope="module")
def page(lab, tmp_path_factory):
    """A notebook with a signed-in user, the tables, the columns of one of them, and SQL cells."""
    with notebook_opener(lab, tmp_path_factory.mktemp("config")) as open_notebook:
        lists = ("%micromegas_tables", "%micromegas_tables log_entries")
        page, _ = open_notebook("tables", "%micromegas_login --flow device", *lists, SQL, *EDITED)
        sign_in_by_code(page)
        page.locator(".micromegas-grid").nth(1).wait_for()
        page.locator("text=/Python 3.*Idle/").first.wait_for()
        assert "to continue" not in page.content()
        yield page


def test_tables_and_the_columns_of_one_are_grids(page):
    tables, columns = page.locator(".micromegas-grid").all()

    expect(tables).to_contain_text("Log entries that programs sent")
    expect(tables.get_by_role("rowheader")).to_have_count(11)
    expect(columns).to_contain_text("Module or logger")


def test_tab_completes_a_table_and_then_its_columns(page):
    cell = page.locator(".jp-Notebook .cm-content").filter(has_text="SELECT * FROM log")
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
    page.keyboard.type("lev")
    page.keyboard.press("Enter")

    expect(cell).to_contain_text("WHERE l.level")


def test_cells_that_begin_with_the_magic_are_edited_as_sql(page):
    def editor(text):
        return page.locator(".jp-Notebook .cm-content").filter(has_text=text)

    def colour(word):
        """Return the colour of a token, which it has only when the editor knows what it is."""
        return editor("errors <<").locator("span", has_text=word).first.evaluate("each => getComputedStyle(each).color")

    modes = {"errors <<": "sql", "%%micromegas_sql": "sql", "'python'": "python", "%%sqlish": "python"}
    for text, mode in modes.items():
        expect(editor(text)).to_have_attribute("data-language", mode)
    assert len({colour(word) for word in ("SELECT", "'literal'", "newest")}) == 3
