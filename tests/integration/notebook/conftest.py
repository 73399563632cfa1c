"""A demo's provider and server for a module of tests, and an IPython shell."""

import pytest
from IPython.core.interactiveshell import InteractiveShell

from micromegas_jupyter.demo.stack import DemoStack
from micromegas_jupyter.notebook.extension import unregister


@pytest.fixture(scope="module")
def stack():
    with DemoStack(spare_executors=1) as running:
        yield running


@pytest.fixture
def shell():
    shell = InteractiveShell()
    shell.history_manager.enabled = False
    with shell.builtin_trap, shell.display_trap:
        yield shell
    unregister(shell)
    shell.history_manager.end_session()
    shell.restore_sys_module_state()
