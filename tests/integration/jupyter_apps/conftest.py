"""JupyterLab and Notebook 7 of one server below a base URL, in a real browser, and the demo's provider and server."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import nbformat
import pytest
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import sync_playwright

from micromegas_jupyter.demo.folder import copy_notebooks
from micromegas_jupyter.demo.lab import LabProcess
from micromegas_jupyter.demo.stack import DemoStack
from tests.integration.browser.conftest import CHROMIUM_OPTIONS, chromium
from tests.integration.browser.looks import wait_until_closed

if TYPE_CHECKING:
    from pathlib import Path


__all__ = ["chromium"]

BASE_URL = "/user/ann/"
LONGEST_WAIT_MILLISECONDS = 90_000
KERNELSPEC = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}


def pytest_generate_tests(metafunc):
    """Run each scene in JupyterLab, and one of them in Notebook 7 instead, or in the long run each in both."""
    if "app" in metafunc.fixturenames:
        # In JupyterLab, `tests/integration/browser/test_quickstart.py` runs all cells and signs in, too.
        app = "notebook" if metafunc.function.__name__.startswith("test_run_all") else "lab"
        metafunc.parametrize("app", ["lab", "notebook"] if metafunc.config.getoption("--long") else [app])


@dataclass(frozen=True)
class Jupyter:
    """A running Jupyter server: where it is, and the folder of its notebooks."""

    origin: str
    query: str
    notebooks: Path


@pytest.fixture(scope="package")
def stack():
    with DemoStack(spare_executors=1) as running:
        yield running


@pytest.fixture(scope="package")
def jupyter(chromium, stack, tmp_path_factory):
    folder = tmp_path_factory.mktemp("jupyter")
    copy_notebooks(folder)
    process = LabProcess(
        tmp_path_factory.mktemp("lab"),
        stack.process_environment(),
        notebooks=folder,
        settings=tmp_path_factory.mktemp("settings"),
        job_environment=stack.job_environment(),
        open_browser=False,
        base_url=BASE_URL,
    )
    try:
        address = urlsplit(process.wait_until_ready())
        yield Jupyter(origin=f"{address.scheme}://{address.netloc}", query=address.query, notebooks=folder)
    finally:
        process.stop()


@pytest.fixture(scope="package")
def browser_context(chromium, jupyter):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_OPTIONS))
        context = browser.new_context(viewport={"width": 1280, "height": 1000}, reduced_motion="reduce")
        context.set_default_timeout(LONGEST_WAIT_MILLISECONDS)
        yield context
        browser.close()


class Notebook:
    """A notebook as a person has it open in one of the two applications."""

    def __init__(self, page, path):
        self.path = path
        self.page = page
        self.wait_until_idle()

    def wait_until_idle(self):
        """Wait until the notebook is there and its kernel does nothing."""
        self.page.locator(".jp-Notebook .jp-Cell").first.wait_for()
        self.page.locator(".jp-KernelName", has_text=re.compile("ipykernel")).first.wait_for()
        self.page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").first.wait_for()

    def choose(self, menu, item):
        self.page.get_by_role("menuitem", name=menu, exact=True).click()
        self.page.get_by_role("menuitem", name=item, exact=True).first.click()

    def run_all(self):
        self.choose("Run", "Run All Cells")

    @property
    def widget(self):
        """The widget that shows who is signed in."""
        return self.page.get_by_role("group", name="Micromegas sign-in").first

    def wait_for_person(self):
        self.widget.get_by_text("Alice Martin").first.wait_for()

    def sign_in(self):
        """Follow the widget's link as Alice; returns the address that her browser ends at."""
        link = self.widget.get_by_role("link", name=re.compile("^Sign in"))
        link.wait_for()
        with self.page.context.expect_page() as opened:
            link.click()
        provider_page = opened.value
        # Within one browser the provider may know her already. The tab closes when she is signed in.
        for names in ("Alice|Allow", "Allow"):
            button = provider_page.get_by_role("button", name=re.compile(names)).first
            with suppress(PlaywrightError):
                button.wait_for()
                button.click()
        wait_until_closed(provider_page)
        return provider_page.url

    def save(self):
        """Save and return what the file holds."""
        with self.page.expect_response(lambda answer: answer.request.method == "PUT" and self.path.name in answer.url):
            self.page.keyboard.press("Control+s")
        self.page.wait_for_function("() => !document.querySelector('.jp-mod-dirty, .jp-DirtyIndicator')")
        return self.path.read_text(encoding="utf-8")


@pytest.fixture
def open_file(browser_context, jupyter):
    """Open a notebook by its path in a new page."""
    pages = []

    def open_one(app, path):
        page = browser_context.new_page()
        pages.append(page)
        place = f"lab/workspaces/{path.stem}/tree" if app == "lab" else "notebooks"
        page.goto(f"{jupyter.origin}{BASE_URL}{place}/{path.name}?{jupyter.query}")
        return Notebook(page, path)

    yield open_one
    for page in pages:
        page.close()


@pytest.fixture
def open_notebook(open_file, jupyter, tmp_path):
    """Open notebooks whose kernels keep their sign-in in this test's own folder."""

    def open_one(app, name, *sources):
        first = [f"%env MICROMEGAS_CONFIG_DIR={tmp_path / 'config'}\n%load_ext micromegas_jupyter"]
        path = jupyter.notebooks / f"{app}-{name}.ipynb"
        cells = [nbformat.v4.new_code_cell(source) for source in (*first, *sources)]
        made = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNELSPEC})
        path.write_text(nbformat.writes(made), encoding="utf-8")
        return open_file(app, path)

    return open_one
