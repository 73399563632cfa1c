"""A real IPython shell with the extension, and a session without one, whose parts do what a test says."""

from __future__ import annotations

import atexit
from typing import TYPE_CHECKING

import pytest
from IPython.core.interactiveshell import InteractiveShell

from micromegas_jupyter.notebook.extension import register, unregister
from micromegas_jupyter.notebook.login.session import NotebookSession
from tests.fakes.notebook_world import FakePersonalProvider, FakeWorld

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def bare_shell() -> Iterator[InteractiveShell]:
    """A terminal-like shell of its own, as no singleton and without a history file."""
    shell = InteractiveShell()
    shell.history_manager.enabled = False
    # A shell puts itself into the builtins and takes the display hook; the next test gets a fresh one.
    with shell.builtin_trap, shell.display_trap:
        yield shell
    shell.history_manager.end_session()
    atexit.unregister(shell.atexit_operations)  # or the end of the run collects garbage once for each shell
    shell.restore_sys_module_state()


@pytest.fixture
def world() -> FakeWorld:
    """A world in which Alice is signed in."""
    return FakeWorld(stored=FakePersonalProvider())


@pytest.fixture
def shell(bare_shell: InteractiveShell, world: FakeWorld) -> Iterator[InteractiveShell]:
    """The shell with the extension."""
    register(bare_shell, world.dependencies())
    yield bare_shell
    unregister(bare_shell)


@pytest.fixture
def session(world: FakeWorld) -> NotebookSession:
    """A session in that world."""
    return NotebookSession(world.dependencies())
