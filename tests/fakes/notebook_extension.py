"""An IPython extension for kernels in tests: the real magics over a fake world, which cells reach as `world`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from micromegas_jupyter.notebook.extension import register, unregister
from tests.fakes.notebook_world import FakePersonalProvider, FakeWorld

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load_ipython_extension(shell: InteractiveShell) -> None:
    world = FakeWorld(stored=FakePersonalProvider())
    shell.user_ns["world"] = world
    register(shell, world.dependencies())


def unload_ipython_extension(shell: InteractiveShell) -> None:
    unregister(shell)
