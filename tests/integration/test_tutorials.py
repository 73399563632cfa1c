"""Each tutorial is followed to its end, from an empty folder: its files, its commands, what they print."""

import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.architecture.guide_text import DOCS
from tests.fakes.ports import free_port
from tests.fakes.terminal import make_browser
from tests.fakes.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
SERVES = re.compile(r"^(?:\w+=\S+ )?micromegas (?:serve|demo) (?!.*--check-config)")
PORT = "50051"
DONE = "-- done --"
SETTINGS = ("MICROMEGAS_", "OTEL_", "CI", "SSH_", "XDG_")


def squeezed(text):
    return "".join(f"{' '.join(line.split())}\n" for line in text.strip().split("\n"))


def pattern_of(text):
    """Return an expression for what a page shows, where `…` stands for anything, on a line of its own for any lines."""
    lines = [re.sub(r"(?:\\ )*…(?:\\ )*", ".*", re.escape(line)) for line in squeezed(text).splitlines()]
    return re.compile("".join(r"(?:.*\n)*?" if line == ".*" else rf"{line}\n" for line in lines))


class Follower:
    """Somebody at a shell in an empty folder."""

    def __init__(self, folder):
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
        environ = {
            **kept,
            "HOME": str(folder),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "BROWSER": make_browser(folder / "browser"),
            "DISPLAY": ":0",
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        }
        self._port = str(free_port())
        self._servers = []
        self._shell = subprocess.Popen(
            ["bash"], cwd=folder, env=environ, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_text(text.replace(PORT, self._port))

    def run(self, commands):
        """Return what the commands print."""
        # Nobody is asked to sign in where there is no terminal, unless a flow is named.
        commands = commands.replace("micromegas login", "micromegas login --flow browser").replace(PORT, self._port)
        self._shell.stdin.write(f"{commands}\necho '{DONE}'\n")
        self._shell.stdin.flush()
        printed = []
        for line in self._shell.stdout:
            if line == f"{DONE}\n":
                return "".join(printed).replace(self._port, PORT)
            printed.append(line)
        pytest.fail(f"the shell has ended: {''.join(printed)}")

    def serve(self, command, expected):
        """Start what serves until the end, and return once it has printed what the page shows."""
        log = self.folder / f"server-{len(self._servers)}.log"
        log.touch()
        line = f"{command.strip()} --port {PORT}"
        self._servers.append(self.run(f"{line} > {log} 2>&1 &\necho $!").strip())

        def printed():
            return log.read_text().replace(self._port, PORT)

        wait_until(
            lambda: expected.search(squeezed(printed())) or not self._is_running(), "the server's lines", seconds=120
        )
        assert expected.search(squeezed(printed())), printed()
        self.run("\n".join(re.findall(r"^ +(export .*)$", printed(), flags=re.MULTILINE)))

    def _is_running(self):
        return Path(f"/proc/{self._servers[-1]}").exists()

    def leave(self):
        with suppress(BrokenPipeError):
            self._shell.communicate("\n".join(f"kill {server}; wait {server}" for server in self._servers), timeout=120)


@pytest.mark.parametrize("page", sorted((DOCS / "tutorials").glob("*.md")), ids=lambda page: page.stem)
def test_a_tutorial_can_be_followed_to_its_end(page, tmp_path):
    blocks = [(language, title, text) for language, title, text in BLOCK.findall(page.read_text(encoding="utf-8"))]
    outputs = [text for language, _, text in blocks if language == "text"]
    follower = Follower(tmp_path)
    try:
        seen = 0
        for (language, title, text), (following, _, shown) in zip(blocks, [*blocks[1:], ("", "", "")], strict=True):
            expected = pattern_of(shown) if following == "text" else None
            if title:
                follower.write(title, text)
            elif language == "sh" and SERVES.match(text):
                follower.serve(text, expected)
                seen += 1
            elif language == "sh":
                printed = follower.run(text)
                seen += expected is not None
                assert expected is None or expected.fullmatch(squeezed(printed)), printed
    finally:
        follower.leave()

    assert seen == len(outputs) > 3
