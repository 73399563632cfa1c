"""An IPython extension for kernels in tests: the real magics over a fake world, which cells reach as `world`."""

from micromegas_jupyter.notebook.extension import register, unregister
from tests.fakes.notebook_world import FakePersonalProvider, FakeWorld


def load_ipython_extension(shell):
    world = FakeWorld(stored=FakePersonalProvider())
    shell.user_ns["world"] = world
    register(shell, world.dependencies())


def unload_ipython_extension(shell):
    unregister(shell)
