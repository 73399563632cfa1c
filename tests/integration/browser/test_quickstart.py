"""The main job as a person does it: JupyterLab, Run All, sign in as Alice, rows; then a second notebook."""

import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import nbformat
import pytest
import requests
from playwright.sync_api import expect

from tests.integration.browser.conftest import PROVIDER_COOKIE
from tests.integration.browser.looks import run_all, save, wait_until_closed

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{5,}\.")


@pytest.fixture(scope="module")
def quickstart(lab, demo):
    """The file of the quickstart, which the demo's address shows, saved after Run All and a sign-in as Alice."""
    lab.context.clear_cookies(name=PROVIDER_COOKIE)
    path = demo.notebooks / "quickstart.ipynb"
    page = lab.show(path)
    page.set_viewport_size({"width": 1280, "height": 1400})
    run_all(page)
    with lab.context.expect_page() as opened:
        page.get_by_role("link", name=re.compile("Sign in")).first.click()
    provider_page = opened.value
    provider_page.get_by_role("button", name=re.compile("Alice")).click()
    provider_page.get_by_role("button", name="Allow").click()
    wait_until_closed(provider_page)

    page.get_by_text("Alice Martin").first.wait_for()
    page.get_by_text(re.compile(r"expires in \d+:\d\d")).first.wait_for()
    page.locator(".micromegas-grid td").first.wait_for()
    expect(page.locator(".jp-InputArea-prompt", has_text="[*]")).to_have_count(0)
    save(page)
    yield path
    lab.close_notebooks()


def test_run_all_signs_in_in_the_middle_and_ends_with_rows(quickstart, demo):
    saved = quickstart.read_text(encoding="utf-8")

    cells = [cell for cell in nbformat.reads(saved, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    assert [output for cell in cells for output in cell.outputs if output.output_type == "error"] == []
    assert not TOKEN.search(saved)
    assert "code=" not in saved
    assert "state=" not in saved
    assert "code_challenge" not in saved
    tokens = json.loads((Path(demo.environ["MICROMEGAS_CONFIG_DIR"]) / "tokens.json").read_text())["token"]
    for name in ("access_token", "id_token", "refresh_token"):
        assert tokens[name] not in saved


def test_a_second_notebook_and_a_terminal_need_no_new_sign_in(quickstart, lab, demo):
    notebook = nbformat.read(quickstart, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    nbformat.write(notebook, demo.notebooks / "second.ipynb")

    page = lab.show(demo.notebooks / "second.ipynb")
    run_all(page)
    page.get_by_text("Alice Martin").first.wait_for()
    page.locator(".micromegas-grid td").first.wait_for()
    result = subprocess.run(
        [sys.executable, "-m", "micromegas_jupyter.cli", "query", "SELECT 1 AS one"],
        env=demo.environ, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip

    assert page.get_by_role("link", name=re.compile("^Sign in")).count() == 0
    assert result.returncode == 0, result.stderr


def test_the_notebook_of_a_job_has_a_kernel_with_the_variables_of_the_service_account(demo):
    address = urlsplit(demo.lab_url)
    kernels = requests.get(
        f"http://{address.netloc}/api/kernelspecs",
        headers={"Authorization": f"token {parse_qs(address.query)['token'][0]}"},
        timeout=60,
    ).json()["kernelspecs"]

    notebook = nbformat.read(demo.notebooks / "service-account.ipynb", as_version=4)

    variables = kernels[notebook.metadata.kernelspec.name]["spec"]["env"]
    assert variables["MICROMEGAS_ANALYTICS_URI"] == demo.uri
    assert variables["MICROMEGAS_OIDC_CLIENT_ID"] != demo.environ["MICROMEGAS_OIDC_CLIENT_ID"]
    assert "MICROMEGAS_OIDC_CLIENT_SECRET" not in variables
    assert "python3" in kernels
