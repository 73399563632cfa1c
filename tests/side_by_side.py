"""How the whole suite is spread over processors: which files stay together, and which go first.

Whoever names files, turns capturing off or asks for a debugger runs in one process, as without pytest-xdist.
"""

import os
import re

MAX_PROCESSES = 4
# An object's address or a signed token in a test's name: processes could not tell each other which test is meant.
CHANGING_NAME = re.compile(r" at 0x[0-9a-f]{6}|eyJ[\w-]{20,}\.[\w-]*\.[\w-]{60}")
# Folders whose tests share a server that takes long to start.
SHARED_SERVERS = (
    "tests/integration/binder",
    "tests/integration/browser",
    "tests/integration/hub",
    "tests/integration/jupyter_apps",
    "tests/integration/system",
)
# What takes longest, the longest first: whatever comes last should be short, so that all processes end together.
FIRST = (
    "tests/integration/browser",
    "tests/integration/auth/test_chaos.py",
    "tests/benchmarks",
    "tests/notebooks",
    "tests/integration/binder",
    "tests/integration/jupyter_apps",
    "tests/integration/hub",
    "tests/integration/system",
    "tests/integration/test_guides.py",
    "tests/integration/relay",
    "tests/integration/notebook",
    "tests/integration",
    "tests/unit/engine",
    "tests/unit/client",
)


def process_count(config):
    """Return in how many processes this run's tests go, or nothing where the person who runs them has decided."""
    options = config.option
    is_whole = config.args_source is not config.ArgsSource.ARGS
    if not is_whole or options.numprocesses is not None or options.usepdb or options.capture == "no":
        return None
    # Tests wait for servers, kernels, and browsers: fast ones for a third of their time, slow ones for half of it.
    processors = os.cpu_count() or 1
    return min(2 * processors if config.getoption("--slow") else 1 + processors, MAX_PROCESSES)


def places_of(tests):
    """Return the folders and files that hold all tests, of about the same size."""
    folders = sorted(path for path in tests.iterdir() if path.is_dir() and path.name != "unit")
    return [path for path in (*folders, *sorted((tests / "unit").iterdir())) if not path.name.startswith("__")]


def scope_of(nodeid):
    """Return the file or folder whose tests run in one process."""
    return next((folder for folder in SHARED_SERVERS if nodeid.startswith(f"{folder}/")), nodeid.partition("::")[0])


def order_of(nodeid):
    """Return where a test comes in the order."""
    return next((position for position, start in enumerate(FIRST) if nodeid.startswith(start)), len(FIRST))


def make_scheduler(config, log):
    """Return what gives each process whole files, or whole folders, in the order in which they were collected."""
    # A run in one process needs no pytest-xdist.
    from xdist.scheduler import LoadScopeScheduling

    class Spreading(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return scope_of(nodeid)

    return Spreading(config, log)
