"""SQL cells in Notebook 7; in JupyterLab `browser/test_tables.py` looks at more of them."""

import pytest
from playwright.sync_api import expect

from tests.integration.jupyter_apps.conftest import LONGEST_WAIT_MILLISECONDS

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]


def test_notebook_7_edits_a_sql_cell_as_sql_and_others_as_python(open_notebook):
    notebook = open_notebook("notebook", "sql-mode", "%%sql\nSELECT 'literal' FROM log_entries", "first_cell = 1")
    editors = notebook.page.locator(".jp-Notebook .cm-content")

    for text, mode in (("%%sql", "sql"), ("first_cell", "python")):
        editor = editors.filter(has_text=text)
        expect(editor).to_have_attribute("data-language", mode, timeout=LONGEST_WAIT_MILLISECONDS)
