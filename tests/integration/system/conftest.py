"""The demo's stack, once for all tests of the whole system: real provider, real server, real telemetry."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter import wiring
from micromegas_jupyter.demo.stack import DemoStack, wait_for_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

COMMAND_TIMEOUT_SECONDS = 120


@pytest.fixture(scope="package")
def stack() -> Iterator[DemoStack]:
    """A running demo without JupyterLab that has recorded something."""
    with DemoStack(spare_executors=1) as running:
        with wiring.connect(environ={**running.process_environment(), **running.service_environment()}) as client:
            wait_for_rows(client)
        yield running


@pytest.fixture
def person(stack: DemoStack, tmp_path: Path) -> dict[str, str]:
    """The environment of a person with a configuration folder of their own, not signed in."""
    return {**stack.process_environment(), "MICROMEGAS_CONFIG_DIR": str(tmp_path / "config")}


@pytest.fixture
def nobody(person: dict[str, str]) -> dict[str, str]:
    """The environment of a person for whom nothing is configured."""
    kept = {name: value for name, value in person.items() if not name.startswith("MICROMEGAS_")}
    return {**kept, "MICROMEGAS_CONFIG_DIR": person["MICROMEGAS_CONFIG_DIR"]}


@pytest.fixture
def service(stack: DemoStack, person: dict[str, str]) -> dict[str, str]:
    """The environment of the demo's service account."""
    return {**person, **stack.service_environment(), "MICROMEGAS_CONFIG_DIR": person["MICROMEGAS_CONFIG_DIR"]}


@pytest.fixture
def unused_address() -> Iterator[str]:
    """A loopback address that refuses connections: bound, but nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def micromegas() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the `micromegas` command as a process of its own."""

    def run(*arguments: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "micromegas_jupyter.cli", *arguments],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_TIMEOUT_SECONDS,
        )

    return run
