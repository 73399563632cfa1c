"""Each page is followed to its end, from an empty folder: its files, commands and cells, and what they print."""

import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Timer

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from micromegas_jupyter.demo.provider.scripted_person import ScriptedPerson
from micromegas_jupyter.notebook.extension import unregister
from micromegas_jupyter.wiring.client_side import load_client_settings
from micromegas_jupyter.wiring.sign_in import login
from tests.architecture.guide_text import PAGES, blocks, executed_blocks
from tests.fakes.ports import free_port
from tests.fakes.terminal import make_browser
from tests.fakes.waiting import wait_until
from tests.notebooks.conftest import stack

__all__ = ["stack"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SERVES = re.compile(r"^(?:\w+=\S+ )?micromegas (?:serve|demo) (?!.*--check-config)")
PORT = "50051"
DONE = "-- done"
WAIT_SECONDS = 120
ISSUER = "https://id.example.com"
SETTINGS = ("MICROMEGAS_", "OTEL_", "CI", "SSH_", "XDG_")


def squeezed(text):
    return "".join(f"{' '.join(line.split())}\n" for line in text.strip().split("\n"))


def pattern_of(text, *, exact=True):
    """Return an expression for what a page shows, where `…` stands for anything, on a line of its own for any lines.

    Unless it is exact, any number may stand for another one.
    """
    lines = [re.sub(r"(?:\\ )*…(?:\\ )*", ".*", re.escape(line)) for line in squeezed(text).splitlines()]
    expression = "".join(r"(?:.*\n)*?" if line == ".*" else rf"{line}\n" for line in lines)
    return re.compile(expression if exact else re.sub(r"\d+", r"\\d+", expression))


def replaced(text, names):
    """Replace each name once: what stands for one may contain another."""
    return re.sub("|".join(map(re.escape, names)), lambda found: names[found[0]], text)


class Follower:
    """Somebody at a shell in an empty folder; `own` are their names in place of the page's."""

    def __init__(self, folder, environ, own, *, port="0"):
        self._folder, self._own, self._port = folder, own, port
        self._servers = []
        self._shell = subprocess.Popen(
            ["bash"], cwd=folder, env=environ, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._shell.stdin.write("failed=0; trap 'failed=$?' ERR\n")

    def ours(self, text):
        return replaced(text, self._own)

    def theirs(self, text):
        return replaced(text, {ours: theirs for theirs, ours in self._own.items()})

    def write(self, name, text):
        path = self._folder / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(self.ours(text))

    def run(self, commands):
        """Return what the commands print, and the status of the last one that failed, or 0."""
        # Without a terminal, the command signs in only if its flow is given. The browser signs in as Alice, or as Bob.
        commands = re.sub(r"micromegas login(?! --(?:flow|help))", "micromegas login --flow browser", commands)
        commands = re.sub(
            r"^(?=micromegas login .*--profile bob$)", "BROWSER=~/browser-bob ", commands, flags=re.MULTILINE
        )
        self._shell.stdin.write(f'{self.ours(commands)}\necho "{DONE} $failed"; failed=0\n')
        self._shell.stdin.flush()
        printed = []
        watch = Timer(WAIT_SECONDS, self._shell.kill)
        watch.start()
        for line in self._shell.stdout:
            if line.startswith(DONE):
                watch.cancel()
                return self.theirs("".join(printed)), int(line.removeprefix(DONE))
            printed.append(line)
        pytest.fail(f"the shell has ended: {''.join(printed)}")

    def serve(self, commands, expected):
        """Start what serves until the end, and return once it has printed what the page shows."""
        log = self._folder / f"server-{len(self._servers)}.log"
        log.touch()
        line = f"{commands.strip()} --port {self._port}"
        started, _status = self.run(f"{line} > {log} 2>&1 &\necho $!")
        self._servers.append(started.strip())

        def printed():
            return self.theirs(log.read_text())

        wait_until(
            lambda: expected.search(squeezed(printed())) or not self._is_running(), "the server's lines", seconds=120
        )
        assert expected.search(squeezed(printed())), printed()
        self.run("\n".join(re.findall(r"^ +(export .*)$", printed(), flags=re.MULTILINE)))

    def _is_running(self):
        return Path(f"/proc/{self._servers[-1]}").exists()

    def leave(self):
        stopped = [f"kill {server}; wait {server}" for server in self._servers]
        with suppress(BrokenPipeError):
            self._shell.communicate("\n".join([*stopped, "kill $(jobs -p); wait"]), timeout=120)


class Notebook:
    """A real IPython shell in this process, with the extension."""

    def __init__(self):
        self._shell = InteractiveShell()
        self.names = self._shell.user_ns
        self._shell.history_manager.enabled = False
        self._shell.run_line_magic("load_ext", "micromegas_jupyter")

    def run(self, cell, _expected):
        """Return what the cell prints, and whether it failed."""
        with self._shell.builtin_trap, self._shell.display_trap, capture_output() as captured:
            result = self._shell.run_cell(cell)
        return captured.stdout + captured.stderr, not result.success

    def leave(self):
        unregister(self._shell)
        self._shell.history_manager.end_session()
        self._shell.restore_sys_module_state()


def follow(page, follower, notebook=None, *, exact=True):
    """Execute each block in order; return how many outputs were compared."""
    compared = 0
    for block in executed_blocks(page):
        expected = None if block.shown is None else pattern_of(block.shown, exact=exact)
        *earlier, last = block.text.strip().split("\n")
        if block.title:
            follower.write(block.title, block.text)
        elif block.language == "sh" and SERVES.match(f"{last} "):
            printed, status = follower.run("\n".join(earlier))
            assert not status, (block.place, printed)
            follower.serve(last, expected or re.compile("ready in"))
            compared += expected is not None
        else:
            printed, status = (
                follower.run(block.text)
                if block.language == "sh"
                else notebook.run(follower.ours(block.text), expected)
            )
            assert expected is not None or not status, (block.place, printed)
            assert expected is None or expected.fullmatch(squeezed(printed)), (block.place, printed)
            compared += expected is not None
    return compared


def shell_environment(folder):
    make_browser(folder / "browser-bob", "bob")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    return {
        **kept,
        "HOME": str(folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "BROWSER": make_browser(folder / "browser"),
        "DISPLAY": ":0",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }


HUB_TUTORIAL = "tutorials/hub.md"  # followed by test_hub_tutorial.py
NOTEBOOK_TUTORIAL = "tutorials/notebook.md"  # needs a server, as the guides do
TUTORIALS = [page for page in PAGES if page.startswith("tutorials/") and page != NOTEBOOK_TUTORIAL]
GUIDES = [
    page for page in PAGES if page not in TUTORIALS and any(block.title is None for block in executed_blocks(page))
]


@pytest.mark.parametrize("page", [page for page in TUTORIALS if page != HUB_TUTORIAL])
def test_a_tutorial_can_be_followed_to_its_end(page, tmp_path):
    port = str(free_port())
    follower = Follower(tmp_path, shell_environment(tmp_path), {PORT: port}, port=port)
    try:
        compared = follow(page, follower)
    finally:
        follower.leave()

    assert compared == len([block for block in blocks(page) if block.language == "text"]) > 3


(CLIENT,) = [block.text for block in blocks("tutorials/client.md") if block.title == "client.py"]
ACCESS = {"oidc": {"issuers": [{"issuer": ISSUER, "audience": "lake-notebooks"}]}}
SERVER = {"uri": "grpc+tls://lake.example.com:50051"}
# What somebody has who comes to a page, besides the address of a server, the names of a provider, and a sign-in there.
FILES = {
    "flight-sql.md": {"client.py": CLIENT},
    "ingest.md": {"etc/micromegas/access.json": json.dumps(ACCESS)},
    "magics.md": {
        ".micromegas/config.json": json.dumps(
            {"default_profile": "production", "profiles": {"production": SERVER, "staging": SERVER}}
        )
    },
    "service-accounts.md": {"etc/lake/client-secret": "secret-of-lake-nightly"},
}


@pytest.mark.parametrize("page", GUIDES)
def test_a_guide_can_be_followed_to_its_end(page, stack, tmp_path, monkeypatch):
    issuer, address = stack.provider.issuer, stack.server.uri.removeprefix("grpc://")
    own = {
        "127.0.0.1:50051": address,
        "grpc+tls://lake.example.com:50051": stack.server.uri,
        "grpc://localhost:50051": stack.server.uri,
        "lake.example.com:50051": address,
        "https://id.example.com/realms/example": issuer,
        ISSUER: issuer,
        "id.example.com": issuer.removeprefix("http://"),
        "lake-notebooks": stack.provider.client_id,
        "secret-of-lake-nightly": stack.provider.service_secret.reveal(),
        "lake-nightly": stack.provider.service_client_id,
        "48080": str(free_port()),
        "4318": str(free_port()),
        "/etc/": f"{tmp_path}/etc/",
        "/srv/": f"{tmp_path}/srv/",
    }
    config = {"MICROMEGAS_CONFIG_DIR": str(tmp_path / ".micromegas")}
    environ = {**shell_environment(tmp_path), **stack.client_environment(), **config}
    for name in {*os.environ} - {*environ}:
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for folder in ("etc/micromegas", "etc/lake", "etc/grafana", "srv"):
        (tmp_path / folder).mkdir(mode=0o700, parents=True)
    follower, notebook = Follower(tmp_path, environ, own), Notebook()
    try:
        for name, text in FILES.get(page, {}).items():
            follower.write(name, text)
        with ScriptedPerson(person="alice") as browser:
            provider = login(load_client_settings(environ=environ), browser=browser, environ=environ)
        notebook.names["token"] = provider.get_token()
        for name in ("client.key", "token.txt"):
            follower.write(name, provider.get_token())
        follow(page, follower, notebook, exact=False)
    finally:
        sys.modules.pop("client", None)  # what the page on Flight SQL imports from its folder
        notebook.leave()
        follower.leave()
