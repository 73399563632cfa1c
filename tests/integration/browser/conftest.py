"""A demo with JupyterLab, and a headless Chromium to look at it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import nbformat
import pytest
from playwright.sync_api import expect, sync_playwright

from tests.integration.browser.looks import (
    IDLE,
    close_all,
    open_alone,
    overwrite_changed_files,
    run_all,
    show_tab,
    wait_for_kernel,
)

CHROMIUM_OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP jupyter.example 127.0.0.1",  # an http address that is not a secure context
)  # fmt: skip
# Ten times what a page takes that has the machine to itself.
STATE_TIMEOUT_MILLISECONDS = 90_000
expect.set_options(timeout=STATE_TIMEOUT_MILLISECONDS)
# The name holds the port, too.
PROVIDER_COOKIE = re.compile("^micromegas_demo_")
VIEWPORT = {"width": 1280, "height": 1000}


@pytest.fixture(scope="session")
def chromium():
    """The path of Debian's Chromium."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    return path


@pytest.fixture(scope="package")
def demo(chromium, tmp_path_factory):
    """`micromegas demo --no-browser` with JupyterLab."""
    home = tmp_path_factory.mktemp("demo-home")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")}
    environ["JUPYTERLAB_SETTINGS_DIR"] = str(home / "settings")
    # What takes a kernel more than a second, JupyterLab would leave out of its completions.
    completer = home / "settings" / "@jupyterlab" / "completer-extension" / "manager.jupyterlab-settings"
    completer.parent.mkdir(parents=True)
    completer.write_text(json.dumps({"providerTimeout": STATE_TIMEOUT_MILLISECONDS}), encoding="utf-8")
    # JupyterLab takes a file for somebody else's when it saves by itself while a test saves.
    documents = home / "settings" / "@jupyterlab" / "docmanager-extension" / "plugin.jupyterlab-settings"
    documents.parent.mkdir(parents=True)
    documents.write_text(json.dumps({"autosave": False}), encoding="utf-8")
    server = home / "jupyter-config" / "jupyter_server_config.json"
    server.parent.mkdir()
    server.write_text(json.dumps({"ServerApp": {"allow_remote_access": True}}), encoding="utf-8")
    environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join([str(server.parent), environ["JUPYTER_CONFIG_PATH"]])
    with (
        (home / "stderr").open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "micromegas_jupyter.cli", "demo", "--no-browser", "--ready-json"],
            cwd=home,
            env={**environ, "HOME": str(home), "TMPDIR": str(home)},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            ready = process.stdout.readline()
            yield _read_addresses(ready, (home / "stderr").read_text(), environ, home / "micromegas-demo")
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)


def _read_addresses(ready, printed, environ, notebooks):
    assert ready, printed
    exported = dict(
        line.strip().removeprefix("export ").split("=", 1) for line in printed.splitlines() if "export " in line
    )
    return SimpleNamespace(
        lab_url=next(word for word in printed.split() if "/lab/tree/" in word),
        uri=json.loads(ready)["uri"],
        environ={**environ, **exported},
        notebooks=notebooks,
    )


@pytest.fixture(scope="package")
def browser(chromium):
    """A headless Chromium; each context of it has an empty profile."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_OPTIONS))
        yield launched
        launched.close()


@pytest.fixture(scope="package")
def context(browser):
    """One profile for all tests: JupyterLab's programs are loaded once."""
    # An animation has a page drawn sixty times a second without a graphics card.
    made = browser.new_context(viewport=VIEWPORT, reduced_motion="reduce")
    made.set_default_timeout(STATE_TIMEOUT_MILLISECONDS)
    made.on("page", overwrite_changed_files)
    yield made
    made.close()


class Lab:
    """The page of JupyterLab that all tests share: each shows its notebook there alone."""

    def __init__(self, context, demo):
        self.context, self.notebooks = context, demo.notebooks
        self._url, self.page = demo.lab_url, None

    def show(self, path):
        """Open a notebook in the page and wait for its kernel; the page is loaded where there is none."""
        if self.page is None:
            self.page = self._load()
        self.page.set_viewport_size(VIEWPORT)
        self.page.emulate_media(forced_colors="null", reduced_motion="reduce")
        open_alone(self.page, path.name)
        self.page.locator(".jp-KernelName", has_text="ipykernel").first.wait_for()
        wait_for_kernel(self.page)
        return self.page

    def show_in_own_page(self, path, *, app, host):
        """Open a notebook in a page of its own, in one of the two applications and at one of the machine's names."""
        page = self.context.new_page()
        place = f"/lab/workspaces/{path.stem}/tree/{path.name}" if app == "lab" else f"/notebooks/{path.name}"
        page.goto(self._url.replace("/lab/tree/quickstart.ipynb", place).replace("127.0.0.1", host))
        page.locator(".jp-Notebook .jp-Cell").first.wait_for()
        page.locator(".jp-KernelName", has_text="ipykernel").first.wait_for()
        wait_for_kernel(page, IDLE if app == "lab" else ".jp-Notebook-ExecutionIndicator[data-status='idle']")
        return page

    def _load(self):
        """Follow the address that the demo prints, which shows the quickstart."""
        page = self.context.new_page()
        page.goto(self._url)
        show_tab(page, "quickstart.ipynb")
        wait_for_kernel(page)
        return page

    def close_notebooks(self):
        """Close what is open, and the page as well where a test has left a dialog in it."""
        if self.page is None:
            return
        if self.page.is_closed() or self.page.locator(".jp-Dialog").count():
            self.page.close()
            self.page = None
        else:
            close_all(self.page)


@pytest.fixture(scope="package")
def lab(context, demo):
    """One page of JupyterLab for all tests, which is loaded once."""
    return Lab(context, demo)


@pytest.fixture
def open_notebook(lab, tmp_path):
    """Open a new notebook with a configuration folder of its own, apart from all other tests, and run all its cells."""
    with notebook_opener(lab, tmp_path / "config") as open_one:
        yield open_one


@contextmanager
def notebook_opener(lab, config, *, app="lab", host="127.0.0.1"):
    """Give a function that opens a new notebook of a name and cells and runs them; it closes with the block."""
    before = lab.context.pages
    lab.context.clear_cookies(name=PROVIDER_COOKIE)

    def open_one(name, *sources):
        first = [f"%env MICROMEGAS_CONFIG_DIR={config}", "%load_ext micromegas_jupyter"]
        path = lab.notebooks / f"{name}.ipynb"
        cells = [nbformat.v4.new_code_cell(source) for source in (*first, *sources)]
        metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}}
        path.write_text(nbformat.writes(nbformat.v4.new_notebook(cells=cells, metadata=metadata)), encoding="utf-8")
        is_shared = (app, host) == ("lab", "127.0.0.1")
        page = lab.show(path) if is_shared else lab.show_in_own_page(path, app=app, host=host)
        run_all(page)
        return page, path

    yield open_one
    lab.close_notebooks()
    for page in lab.context.pages:
        if page not in before and page is not lab.page:
            page.close()
