"""The tutorial for administrators of a Hub is followed to its end, its notebook in a browser."""

from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.architecture.guide_text import blocks
from tests.fakes.ports import free_port
from tests.fakes.waiting import wait_until
from tests.integration.browser.conftest import CHROMIUM_OPTIONS, STATE_TIMEOUT_MILLISECONDS, chromium
from tests.integration.hub.running import PROXY_PROGRAM
from tests.integration.other_provider.installing import find_node, install_once
from tests.integration.test_guides import HUB_TUTORIAL, PORT, Follower, follow, shell_environment, squeezed

__all__ = ["chromium"]

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

HUB_PORT = "8000"
PROXY_FOLDER = Path(__file__).with_name("hub") / "proxy"
# The ports that the page leaves at their defaults, what root needs, and time on a busy machine.
HUB_CONFIG = """import functools
from micromegas_jupyter import hub
hub.configure = functools.partial(hub.configure, service_url="http://127.0.0.1:{}")
c.JupyterHub.hub_port = {}
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{}"
c.Spawner.args = ["--allow-root"]
c.Spawner.start_timeout = c.Spawner.http_timeout = 120
"""


class Administrator(Follower):
    """Somebody with a Hub in the background."""

    def write(self, name, text):
        ports = [free_port() for _each in range(3)]
        super().write(name, (HUB_CONFIG.format(*ports) if name == "jupyterhub_config.py" else "") + text)

    def leave(self):
        self.run("for job in $(jobs -p); do kill $job && wait $job; done")
        super().leave()


class HubNotebook:
    """A notebook in Alice's server, which is opened with the first cell."""

    def __init__(self, page, hub_url):
        self._page, self._hub_url, self._count = page, hub_url, 0

    def _open(self):
        page = self._page
        page.goto(self._hub_url)
        page.get_by_text("Sign in with").click()
        expect(page.locator("body")).to_contain_text("JupyterHub")
        page.get_by_role("button", name="Continue as Alice").click()
        page.get_by_role("button", name="Allow", exact=True).click()
        page.locator(".jp-LauncherCard[data-category=Notebook]").first.click()
        page.locator("text=/Python 3.*Idle/").first.wait_for()

    def run(self, source, expected):
        """Return what the page expects of the cell once it shows that, and that it has not failed."""
        if not self._count:
            self._open()
        cell = self._page.locator(".jp-Notebook .jp-Cell").nth(self._count)
        cell.locator(".cm-content").fill(source.strip())
        self._page.keyboard.press("Shift+Enter")
        self._count += 1
        outputs = cell.locator(".jp-Cell-outputArea")
        try:
            wait_until(lambda: expected.search(squeezed(outputs.inner_text())), "the cell's output", pause_seconds=0.1)
        finally:
            print(outputs.inner_text())
        return expected.search(squeezed(outputs.inner_text()))[0], False


@contextmanager
def opened_page(chromium):
    with ExitStack() as stack:
        launcher = stack.enter_context(sync_playwright()).chromium
        browser = launcher.launch(executable_path=chromium, args=list(CHROMIUM_OPTIONS))
        stack.callback(browser.close)
        page = browser.new_page(reduced_motion="reduce")
        page.set_default_timeout(STATE_TIMEOUT_MILLISECONDS)
        yield page


def make_proxy(cache, folder):
    """Put the Hub's proxy into a folder, as npm does."""
    installed = install_once(Path(cache), source=PROXY_FOLDER, files=("package.json", "package-lock.json"))
    program = folder / "configurable-http-proxy"
    program.write_text(f'#!/bin/sh\nexec {find_node()[0]} {installed / PROXY_PROGRAM} "$@"\n')
    program.chmod(0o755)


def test_the_tutorial_leads_to_a_notebook_that_is_signed_in(pytestconfig, chromium, tmp_path):
    programs, home = tmp_path / "programs", tmp_path / "home"
    programs.mkdir()
    home.mkdir()
    make_proxy(pytestconfig.cache.mkdir("hub_proxy"), programs)
    environ = {name: value for name, value in shell_environment(home).items() if not name.startswith("JUPYTER")}
    environ["PATH"] = f"{programs}:{environ['PATH']}"
    port, hub_port = str(free_port()), str(free_port())
    administrator = Administrator(home, environ, {PORT: port, HUB_PORT: hub_port}, port=port)
    try:
        with opened_page(chromium) as page:
            notebook = HubNotebook(page, f"http://127.0.0.1:{hub_port}/")
            compared = follow(HUB_TUTORIAL, administrator, notebook)
    finally:
        administrator.leave()

    assert compared == len([block for block in blocks(HUB_TUTORIAL) if block.language == "text"]) > 5
