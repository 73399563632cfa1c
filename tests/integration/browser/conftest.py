"""A demo with JupyterLab, and a headless Chromium to look at it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

CHROMIUM_OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@dataclass(frozen=True)
class RunningDemo:
    """Addresses and variables of a demo in a process of its own."""

    lab_url: str
    uri: str
    environ: dict[str, str]
    notebooks: Path


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Debian's Chromium."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    return path


@pytest.fixture(scope="session")
def demo(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDemo]:
    """`micromegas demo --no-browser` with JupyterLab."""
    home = tmp_path_factory.mktemp("demo-home")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")}
    with (
        (home / "stderr").open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "micromegas_jupyter.cli", "demo", "--no-browser", "--ready-json"],
            env={**environ, "HOME": str(home), "TMPDIR": str(home)},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            ready = process.stdout.readline()
            yield _read_addresses(ready, (home / "stderr").read_text(), environ)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=30)


def _read_addresses(ready: str, printed: str, environ: dict[str, str]) -> RunningDemo:
    assert ready, printed
    exported = dict(
        line.strip().removeprefix("export ").split("=", 1) for line in printed.splitlines() if "export " in line
    )
    folder = Path(exported["MICROMEGAS_CONFIG_DIR"]).parent
    return RunningDemo(
        lab_url=next(word for word in printed.split() if "/lab/tree/" in word),
        uri=json.loads(ready)["uri"],
        environ={**environ, **exported},
        notebooks=folder / "notebooks",
    )


@pytest.fixture
def browser(chromium: str, demo: RunningDemo) -> Iterator[Browser]:
    """A headless Chromium with an empty profile."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_OPTIONS))
        yield launched
        launched.close()
