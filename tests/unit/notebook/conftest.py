"""A real IPython shell with the extension, and a session without one, whose parts do what a test says."""

import atexit

import pytest
from IPython.core.interactiveshell import InteractiveShell

from micromegas_jupyter.notebook.extension import register, unregister
from micromegas_jupyter.notebook.login.session import NotebookSession
from tests.fakes.notebook_world import FakePersonalProvider, FakeWorld


@pytest.fixture
def bare_shell():
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
def world():
    """A world in which Alice is signed in."""
    return FakeWorld(stored=FakePersonalProvider())


@pytest.fixture
def shell(bare_shell, world):
    """The shell with the extension."""
    register(bare_shell, world.dependencies())
    yield bare_shell
    unregister(bare_shell)


@pytest.fixture
def session(world):
    """A session in that world."""
    return NotebookSession(world.dependencies())
