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

from tests.integration.browser.conftest import PROVIDER_COOKIE
from tests.integration.browser.looks import save, wait_for_kernel

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{5,}\.")


def _open(context, demo, name="quickstart.ipynb"):
    context.clear_cookies(name=PROVIDER_COOKIE)
    page = context.new_page()
    page.set_viewport_size({"width": 1280, "height": 1400})
    # A workspace of its own, so that JupyterLab does not bring back what an earlier test had open.
    page.goto(demo.lab_url.replace("/lab/tree/quickstart.ipynb", f"/lab/workspaces/{name.split('.')[0]}/tree/{name}"))
    page.get_by_role("tab", name=name).wait_for()
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    wait_for_kernel(page)
    return page


def _run_all(page):
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def test_run_all_signs_in_in_the_middle_and_ends_with_rows(context, demo, tmp_path):
    page = _open(context, demo)
    _run_all(page)
    link = page.get_by_role("link", name=re.compile("Sign in")).first
    link.wait_for()

    with context.expect_page() as opened:
        link.click()
    provider_page = opened.value
    provider_page.get_by_role("button", name=re.compile("Alice")).click()
    provider_page.get_by_role("button", name="Allow").click()
    provider_page.get_by_text("You are signed in").wait_for()

    widget = page.get_by_text("Alice Martin").first
    widget.wait_for()
    page.get_by_text(re.compile(r"expires in \d+:\d\d")).first.wait_for()
    page.locator(".micromegas-grid td").first.wait_for()
    page.locator("text=/Python 3.*Idle/").first.wait_for()
    page.screenshot(path=str(tmp_path / "quickstart.png"), full_page=True)
    assert page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']").count() == 0
    save(page)
    saved = (demo.notebooks / "quickstart.ipynb").read_text(encoding="utf-8")
    assert not TOKEN.search(saved)
    assert "code=" not in saved
    assert "state=" not in saved
    assert "code_challenge" not in saved
    tokens = json.loads((Path(demo.environ["MICROMEGAS_CONFIG_DIR"]) / "tokens.json").read_text())["token"]
    for name in ("access_token", "id_token", "refresh_token"):
        assert tokens[name] not in saved
    page.close()


def test_a_second_notebook_and_a_terminal_need_no_new_sign_in(context, demo):
    second = demo.notebooks / "second.ipynb"
    second.write_text((demo.notebooks / "quickstart.ipynb").read_text(encoding="utf-8"), encoding="utf-8")

    page = _open(context, demo, "second.ipynb")
    page.get_by_role("menuitem", name="Edit", exact=True).click()
    page.get_by_role("menuitem", name="Clear Outputs of All Cells", exact=True).click()
    _run_all(page)
    page.get_by_text("Alice Martin").first.wait_for()
    page.locator(".micromegas-grid td").first.wait_for()
    result = subprocess.run(
        [sys.executable, "-m", "micromegas_jupyter.cli", "query", "SELECT 1 AS one"],
        env=demo.environ, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip

    assert page.get_by_role("link", name=re.compile("^Sign in")).count() == 0
    assert result.returncode == 0, result.stderr
    page.close()


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
