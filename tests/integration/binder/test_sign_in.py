"""The main job in a Binder: JupyterLab below a base URL, Run All, sign in as Alice, rows."""

import json
import re
import time
from contextlib import suppress
from urllib.parse import urlsplit

import nbformat
import psutil
import pytest
from playwright.sync_api import TimeoutError as PageTimeoutError

from tests.integration.binder.binders import BASE_URL, HUB_TOKEN, TOKEN
from tests.integration.browser.looks import (
    choose_theme,
    luminance,
    open_alone,
    run_all,
    wait_for_kernel,
    wait_until_closed,
)

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

STATE_TIMEOUT_MILLISECONDS = 90_000
MEMORY_BYTES = 2 << 30


@pytest.fixture(scope="module")
def context(browser, binder):
    """The browser of somebody who is signed in to this Jupyter, as a Hub would have it."""
    made = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    made.set_default_timeout(STATE_TIMEOUT_MILLISECONDS)
    page = made.new_page()
    page.goto(f"{binder.url}login?token={TOKEN}")
    page.close()
    yield made
    made.close()


@pytest.fixture(scope="module")
def lab(context, binder):
    """The page that Binder's link shows."""
    page = context.new_page()
    page.goto(f"{binder.url}lab/tree/notebooks/quickstart.ipynb")
    page.get_by_role("tab", name="quickstart.ipynb").wait_for()
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    wait_for_kernel(page)
    return page


def run_notebook(lab, name, kernel):
    """Open a notebook alone and run all its cells."""
    open_alone(lab, f"notebooks/{name}.ipynb")
    wait_for_kernel(lab, f"text=/{re.escape(kernel)}.*Idle/")
    run_all(lab)


def wait_at_top(page, text):
    """Wait for something near the first cell: JupyterLab before 4.5 takes away what is out of sight."""
    deadline = time.monotonic() + STATE_TIMEOUT_MILLISECONDS / 1000
    while True:
        page.locator(".jp-WindowedPanel-outer").hover()
        page.mouse.wheel(0, -100_000)
        try:
            text.wait_for(timeout=2_000)
        except PageTimeoutError:
            if time.monotonic() > deadline:
                raise
        else:
            return text


def saved_when_done(page, binder, name):
    """Save a notebook until each of its cells has run, and return it: a page may hold only the cells in sight."""
    path = binder.repository / "notebooks" / f"{name}.ipynb"
    deadline = time.monotonic() + STATE_TIMEOUT_MILLISECONDS / 1000
    while True:
        # No waiting for it to be saved: a cell that goes on makes it unsaved again.
        page.keyboard.press("Control+s")
        page.wait_for_timeout(500)
        saved = path.read_text(encoding="utf-8")
        with suppress(nbformat.reader.NotJSONError):  # being written
            if all(cell.execution_count for cell in _code_cells(saved)):
                return saved
        assert time.monotonic() < deadline, saved


def _code_cells(saved):
    return [cell for cell in nbformat.reads(saved, as_version=4).cells if cell.cell_type == "code"]


def check_rows(saved):
    outputs = [output for cell in _code_cells(saved) for output in cell.outputs]
    assert [output for output in outputs if output.output_type == "error"] == []
    assert "<table" in str(outputs)


def memory_of(programs):
    """Return what programs take together, in bytes, shared pages counted once."""
    taken = 0
    for program in programs:
        with suppress(psutil.NoSuchProcess):
            taken += program.memory_full_info().pss
    return taken


@pytest.fixture
def quickstart(context, binder, lab):
    """The quickstart after Run All and a sign-in as Alice."""
    page = lab
    run_all(page)
    link = wait_at_top(page, page.get_by_role("link", name=re.compile("Sign in")).first)
    with context.expect_page() as opened:
        link.click()
    provider = opened.value
    provider.get_by_role("button", name=re.compile("Alice")).wait_for()
    assert urlsplit(provider.url).path == f"{BASE_URL}micromegas-demo/authorize"
    assert urlsplit(provider.url).netloc == urlsplit(binder.url).netloc
    assert luminance(provider.locator(".card")) > 0.9  # its style was found
    provider.get_by_role("button", name=re.compile("Alice")).click()
    provider.get_by_role("button", name="Allow").click()
    wait_until_closed(provider)
    assert provider.url == f"{binder.url}micromegas/done"
    return page


def test_the_quickstart_signs_in_and_queries(quickstart, binder, save_screenshot):
    saved = saved_when_done(quickstart, binder, "quickstart")
    check_rows(saved)
    for theme in ("Light", "Dark"):
        choose_theme(quickstart, f"JupyterLab {theme}")
        wait_at_top(quickstart, quickstart.get_by_text(re.compile(r"connected as alice@example\.com")).first)
        save_screenshot(quickstart, f"binder-{theme.lower()}")

    memory = memory_of(binder.programs())
    print(f"{memory >> 20} MiB in all")
    assert memory < MEMORY_BYTES
    for secret in _secrets(binder):
        assert secret not in binder.log
        assert secret not in saved
    assert "code=" not in re.sub(r"code=\[secret\]", "", binder.log)
    assert f'"{BASE_URL}micromegas-demo/authorize' not in saved


def test_the_job_runs_in_its_own_kernel_with_nobody_signed_in(lab, binder):
    run_notebook(lab, "service-account", "Service account")

    check_rows(saved_when_done(lab, binder, "service-account"))

    assert lab.get_by_role("link", name=re.compile("^Sign in")).count() == 0


def test_the_providers_pages_are_for_people_of_this_jupyter_only(browser, binder):
    stranger = browser.new_context()
    page = stranger.new_page()

    page.goto(f"{binder.url}micromegas-demo/")

    assert urlsplit(page.url).path == f"{BASE_URL}login"
    stranger.close()


def _secrets(binder):
    entry = json.loads((binder.demo_folder / "config" / "tokens.json").read_text())["token"]
    tokens = [entry[name] for name in ("access_token", "id_token", "refresh_token")]
    return [*tokens, (binder.demo_folder / "job" / "client-secret").read_text().strip(), HUB_TOKEN]
