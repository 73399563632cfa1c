"""SQL cells in JupyterLab: the editor's SQL mode, which comes with the package."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Page

    Open = Callable[..., tuple[Page, Path]]

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

STATEMENT = "SELECT time, 'literal' AS quoted FROM log_entries -- newest"


def editor(page, text):
    return page.locator(".jp-Notebook .cm-content").filter(has_text=text)


def expect_mode(found, mode):
    expect(found).to_have_attribute("data-language", mode)


def look_of(found, word):
    """Return the colour of a token, which it has only when the editor knows what it is."""
    token = found.locator("span", has_text=word).first
    token.wait_for()
    return str(token.evaluate("element => getComputedStyle(element).color"))


def test_cells_that_begin_with_the_magic_are_edited_as_sql(open_notebook, tmp_path):
    page, _ = open_notebook(
        "sql-mode",
        f"%%sql errors << --begin 1h\n{STATEMENT}",
        f"\n  %%micromegas_sql\n{STATEMENT} again",
        "SELECT = 'python'  # %%sql",
        "%%sqlish\nSELECT 1",
    )

    expect_mode(editor(page, "errors <<"), "sql")
    expect_mode(editor(page, "%%micromegas_sql"), "sql")
    expect_mode(editor(page, "'python'"), "python")
    expect_mode(editor(page, "%%sqlish"), "python")
    page.screenshot(path=str(tmp_path / "sql-mode.png"))
    sql = editor(page, "errors <<")
    assert len({look_of(sql, word) for word in ("SELECT", "'literal'", "newest")}) == 3
    page.close()
