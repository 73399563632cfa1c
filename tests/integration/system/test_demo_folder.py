"""What a user makes in the demo is there after Ctrl-C, kill -9, and a restart."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
import requests

from micromegas_jupyter.demo.provider.scripted_person import ScriptedPerson
from micromegas_jupyter.wiring.client_side import load_client_settings, open_client
from micromegas_jupyter.wiring.sign_in import login
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.integration

DEADLINE_SECONDS = 120
COMMAND = [sys.executable, "-m", "micromegas_jupyter.cli", "demo", "--no-browser", "--ready-json"]
MADE = "a note of mine"
THEME = "/lab/api/settings/@jupyterlab/apputils-extension:themes"


class Demo:
    """A demo in a process of its own, and what it prints."""

    def __init__(self, folder, *options):
        environ = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")}
        self.process = subprocess.Popen(
            [*COMMAND, *options], cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._printed = []
        self._reading = threading.Thread(target=lambda: self._printed.extend(self.process.stderr))
        self._reading.start()
        self.ready = json.loads(self.process.stdout.readline() or "{}")

    @property
    def printed(self):
        return "".join(self._printed)

    def jupyter(self, method, path, **content):
        address = r"(http://127\.0\.0\.1:\d+)/lab/tree/quickstart\.ipynb\?token=(\S+)\n"
        url, token = wait_until(lambda: re.search(address, self.printed), "JupyterLab's address is printed").groups()
        headers = {"Authorization": f"token {token}"}
        answer = requests.request(method, f"{url}{path}", headers=headers, json=content or None, timeout=60)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def save(self, name, text):
        """Save a notebook as a front end does."""
        cell = {"cell_type": "markdown", "metadata": {}, "source": text}
        notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 4}
        self.jupyter("PUT", f"/api/contents/{name}", type="notebook", format="json", content=notebook)

    @contextmanager
    def client(self, config):
        environ = {
            "MICROMEGAS_ANALYTICS_URI": self.ready["uri"],
            "MICROMEGAS_OIDC_ISSUER": self.ready["issuer"],
            "MICROMEGAS_OIDC_CLIENT_ID": self.ready["client_id"],
            "MICROMEGAS_CONFIG_DIR": str(config),
        }
        settings = load_client_settings(environ=environ)
        with ScriptedPerson(person="alice") as browser:
            provider = login(settings, browser=browser, environ=environ)
        with open_client(settings, provider) as client:
            yield client

    def end(self, how=None):
        if how is not None:
            self.process.send_signal(how)
        code = self.process.wait(DEADLINE_SECONDS)
        self._reading.join(DEADLINE_SECONDS)
        return code


@pytest.fixture
def start(tmp_path):
    started = []

    def run(*options):
        started.append(Demo(tmp_path, *options))
        return started[-1]

    yield run
    for demo in started:
        demo.end(signal.SIGKILL)
        demo.process.stdout.close()
        demo.process.stderr.close()


def test_notebooks_and_rows_survive_kill_and_ctrl_c_and_a_fresh_start_removes_the_rows_alone(start, tmp_path):
    folder = tmp_path / "micromegas-demo"
    first = start()
    first.save("quickstart.ipynb", MADE)
    first.save("mine.ipynb", MADE)
    autosave = first.jupyter("GET", "/lab/api/settings/@jupyterlab/docmanager-extension:plugin")
    first.jupyter("PUT", THEME, raw='{"theme": "JupyterLab Dark"}')
    with first.client(tmp_path / "first") as client:
        client.bulk_ingest("mine", client.query_arrow("SELECT 1 AS n"), mode="create")
    another = start()
    refused = another.end()
    interrupted = first.end(signal.SIGINT)

    second = start("--no-lab", "--notebooks", str(folder))
    with second.client(tmp_path / "second") as client:
        rows = client.query_arrow("SELECT n FROM mine").to_pylist()
        removed = client.delete_rows("mine", where="n = 1")
    second.end(signal.SIGKILL)
    third = start("--no-lab", "--fresh")
    with third.client(tmp_path / "third") as client:
        tables = client.list_tables()

    assert autosave["schema"]["properties"]["autosaveInterval"]["default"] == 10
    assert (refused, "Another demo is using the directory micromegas-demo." in another.printed) == (2, True)
    assert (rows, removed, interrupted) == ([{"n": 1}], 1, 0)
    assert "mine" not in tables
    for name in ("quickstart.ipynb", "mine.ipynb"):
        assert MADE in (folder / name).read_text()
    assert MADE not in (folder / "service-account.ipynb").read_text()
    (theme,) = (folder / ".micromegas-demo" / "jupyter" / "user-settings").rglob("themes.jupyterlab-settings")
    assert "JupyterLab Dark" in theme.read_text()


def test_a_lake_that_cannot_be_opened_is_left_with_the_option_for_an_empty_one(start, tmp_path):
    folder = tmp_path / "mine"
    lake = folder / ".micromegas-demo" / "lake"
    lake.mkdir(parents=True)
    (lake / "notes.txt").touch()

    demo = start("--no-lab", "--notebooks", str(folder))

    assert demo.end() == 2
    # The command without the folder would empty the lake of another one.
    assert "Add --fresh to start with an empty lake in this folder." in demo.printed
    assert (lake / "notes.txt").exists()
