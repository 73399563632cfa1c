"""The sign-in card and the result grid outside Jupyter's own pages: in marimo and in Voila."""

import subprocess
import sys
from contextlib import contextmanager

import nbformat
import pytest
import requests
from playwright.sync_api import expect

from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.demo.provider.scripted_person import ScriptedPerson
from micromegas_jupyter.wiring import client_side
from micromegas_jupyter.wiring import sign_in as signing_in
from tests.fakes.ports import free_port
from tests.fakes.waiting import wait_until
from tests.integration.browser.conftest import STATE_TIMEOUT_MILLISECONDS
from tests.integration.release.test_environments import uv

pytestmark = pytest.mark.integration

APP = """
import marimo

app = marimo.App()


@app.cell
def _():
    import marimo as mo
    import micromegas_jupyter

    card = mo.ui.anywidget(micromegas_jupyter.sign_in_card())
    card
    return card, micromegas_jupyter, mo


@app.cell
def _(card, micromegas_jupyter, mo):
    mo.stop(card.value["status"] != "signed_in")
    client = micromegas_jupyter.connect()
    micromegas_jupyter.ResultGrid(client.query_arrow("SELECT 6 * 7 AS answer, 'a' AS letter"))
    return (client,)


@app.cell
def _(client, mo):
    found = mo.sql("SELECT 'from mo.sql' AS words", engine=client)
    return (found,)
"""


@contextmanager
def serving(packages, arguments, environ, folder):
    """Run a server of pages from packages that no other test needs; yields its address."""
    found = folder / "packages"
    uv("pip", "install", "--python", sys.executable, "--target", str(found), *packages)
    port = free_port()
    environ = {
        **environ,
        "PYTHONPATH": str(found),
        "JUPYTER_PATH": str(found / "share" / "jupyter"),
        "MICROMEGAS_CONFIG_DIR": str(folder / "config"),
        "HOME": str(folder),
    }
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-m", *(part.format(port=port) for part in arguments)],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            wait_until(lambda: process.poll() is not None or _answers(port), "a server")
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()


def _answers(port):
    try:
        return requests.head(f"http://127.0.0.1:{port}/static/none", timeout=5) is not None
    except requests.ConnectionError:
        return False


@pytest.fixture
def page(browser):
    context = browser.new_context(color_scheme="dark", reduced_motion="reduce")
    context.set_default_timeout(STATE_TIMEOUT_MILLISECONDS)
    page = context.new_page()
    page.failures = []
    page.on("console", lambda message: page.failures.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.failures.append(str(error)))
    yield page
    assert [text for text in page.failures if "micromegas" in text] == []
    context.close()


def test_marimo_signs_in_with_one_click_and_then_runs_the_cells_that_need_it(demo, page, tmp_path):
    (tmp_path / "app.py").write_text(APP)
    settings = tmp_path / ".config" / "marimo" / "marimo.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text('[display]\ntheme = "dark"\n')
    arguments = ("marimo", "-y", "run", "app.py", "--headless", "--no-token", "--port", "{port}")
    with serving(["marimo==0.25.2"], arguments, demo.environ, tmp_path) as address:
        page.goto(address)
        with page.context.expect_page() as opened:
            page.get_by_role("button", name="Sign in").click()
        opened.value.locator("button.person[value=alice]").click()
        opened.value.get_by_role("button", name="Allow").click()

        expect(page.locator(".micromegas-card")).to_contain_text("Signed in as Alice Martin")
        expect(page.locator(".micromegas-grid")).to_contain_text("42")
        expect(page.get_by_text("from mo.sql")).to_be_visible()
        assert page.locator(".micromegas-grid").evaluate("el => getComputedStyle(el).color") == "rgb(255, 255, 255)"


def test_voila_shows_results_as_grids(demo, page, tmp_path):
    cells = ["%load_ext micromegas_jupyter", "%%sql\nSELECT 6 * 7 AS answer, value FROM generate_series(1, 30)"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "page.ipynb")
    environ = {**demo.environ, "MICROMEGAS_CONFIG_DIR": str(tmp_path / "config")}
    with ScriptedPerson() as person:
        settings = client_side.load_client_settings(environ=environ)
        signing_in.login(settings, flow=Flow.BROWSER, browser=person, environ=environ)
    arguments = ("voila", "page.ipynb", "--no-browser", "--theme=dark", "--port={port}", "--Voila.ip=127.0.0.1")
    # The rest of what Voila needs is here.
    with serving(["--no-deps", "voila==0.5.13", "websockets"], arguments, demo.environ, tmp_path) as address:
        page.goto(address)

        grid = page.locator(".micromegas-grid")
        expect(grid).to_contain_text("of 30 · 2 columns")
        grid.get_by_role("button", name="Chart").click()
        expect(grid.locator("canvas, svg.marks").first).to_be_visible()
