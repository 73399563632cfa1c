"""A sign-in by redirect as people live through it, in JupyterLab and in Notebook 7 below a base URL."""

import json
import re
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests.integration.jupyter_apps.conftest import LONGEST_WAIT_MILLISECONDS

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{5,}\.")


def test_run_all_signs_in_in_the_middle_and_ends_with_rows(open_notebook, app, tmp_path):
    notebook = open_notebook(app, "run-all", "%micromegas_login", "%%sql\nSELECT 1 AS one", "print('after', 'rows')")
    notebook.run_all()

    ended_at = notebook.sign_in()
    notebook.page.get_by_text("after rows", exact=True).wait_for()

    expect(notebook.page.locator(".micromegas-grid")).to_be_visible()
    for text, mode in (("%%sql", "sql"), ("'after'", "python")):
        editor = notebook.page.locator(".jp-Notebook .cm-content").filter(has_text=text)
        expect(editor).to_have_attribute("data-language", mode, timeout=LONGEST_WAIT_MILLISECONDS)
    assert urlsplit(ended_at).path == "/user/ann/micromegas/done"
    assert urlsplit(ended_at).query == ""
    notebook.wait_for_person()
    notebook.page.get_by_text(re.compile(r"✓ 1 row in")).first.wait_for()
    saved = notebook.save()
    tokens = json.loads((tmp_path / "config" / "tokens.json").read_text())["token"]
    for secret in ("code=", "state=", "code_challenge", *(value for value in tokens.values() if len(str(value)) > 40)):
        assert str(secret) not in saved
    assert not TOKEN.search(saved)


@pytest.mark.long
def test_two_notebooks_that_wait_at_once_share_one_sign_in(open_notebook):
    in_lab = open_notebook("lab", "first-of-two", "%micromegas_login", "%sql SELECT 1 AS one")
    in_notebook = open_notebook("notebook", "second-of-two", "%micromegas_login", "%sql SELECT 2 AS two")
    for notebook in (in_lab, in_notebook):
        notebook.run_all()
        notebook.widget.get_by_role("link", name=re.compile("^Sign in")).wait_for()

    in_lab.sign_in()

    for notebook in (in_lab, in_notebook):
        notebook.wait_for_person()
        notebook.page.get_by_text(re.compile(r"✓ 1 row in")).first.wait_for()
