"""What every test lives under: no network but loopback, no settings of the person who runs the tests."""

import gc
import logging
import os
import re
import socket
import sys
import tempfile
from itertools import count
from pathlib import Path

import hypothesis
import pytest

from tests.fakes.clock import FakeClock
from tests.screenshots import save_screenshot
from tests.side_by_side import CHANGING_NAME, make_scheduler, order_of, places_of, process_count

__all__ = ["save_screenshot"]

# jsonschema checks one more format with this package if it is installed. Loading it takes a second in each process.
_LEFT_OUT = "rfc3987_syntax"
sys.modules.setdefault(_LEFT_OUT, None)

_SKIPPED = []

_LOOPBACK_HOSTS = {"127.0.0.1", "::1", "localhost"}
_real_connect = socket.socket.connect
_real_connect_ex = socket.socket.connect_ex

LONG_TEST_SECONDS = 3600
EXAMPLES, LONG_EXAMPLES = 50, 500

ROOT = Path(__file__).parents[1]
# `pytest --slow` runs these, and tests marked `slow`; `pytest` runs the rest. Slow is what needs a browser, npm,
# JupyterHub, another client or a Debian package, and what takes long.
SLOW = ("tests/integration", "tests/notebooks")
# Fast all the same: each promise of README once, through real sockets, a real Jupyter server and a real kernel.
FAST = (
    "tests/integration/client/",
    "tests/integration/demo_provider/",
    "tests/integration/http/test_callees.py",
    "tests/integration/lakehouse/test_recording.py",
    "tests/integration/notebook/test_retired_connections.py",
    "tests/integration/notebook/test_sql_with_real_stack.py",
    "tests/integration/notebook/test_with_real_stack.py",
    "tests/integration/relay/test_redirect_sign_in.py",
    "tests/integration/service_accounts/test_workloads.py",
    "tests/integration/system/test_terminal.py",
    "tests/integration/test_flight_access.py",
    "tests/integration/test_flight_calls.py",
    "tests/integration/test_login_flows.py",
    "tests/notebooks/test_run_notebooks.py",
)
# Run when they are named.
BENCHMARKS = "tests/benchmarks"
_SLOW_MARK = "pytest.mark.slow"


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the slow tests in place of the fast ones")
    parser.addoption("--forbid-skips", action="store_true", help="a skipped test fails the run")
    parser.addoption("--long", action="store_true", help="run the long versions of tests that have one")
    parser.addoption("--previous", help="the interpreter of another version, for benchmarks to compare with")
    parser.addoption("--save-screenshots", action="store_true", help="put the pictures of docs/images there anew")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    is_long = config.getoption("--long")
    if is_long and config.option.timeout is None:  # before pytest-timeout reads it
        config.option.timeout = LONG_TEST_SECONDS
    # No time limit for an example: what takes long on a busy machine is no defect. The long run tries new examples.
    hypothesis.settings.register_profile(
        "micromegas_jupyter",
        derandomize=not is_long,
        max_examples=LONG_EXAMPLES if is_long else EXAMPLES,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    hypothesis.settings.load_profile("micromegas_jupyter")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    if not config.pluginmanager.hasplugin("xdist") or hasattr(config, "workerinput"):
        return
    count = process_count(config)
    if count is not None:
        config.option.numprocesses = count
        config.option.loadscopereorder = False


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    # A process of pytest-xdist is not told whether somebody named files.
    node.workerinput["is_whole_run"] = _is_whole_run(node.config)


def _is_whole_run(config):
    """Whether nobody named files, so that `--slow` selects."""
    given = getattr(config, "workerinput", {})
    return bool(given.get("is_whole_run", config.args_source is not config.ArgsSource.ARGS))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return make_scheduler(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session):
    config = session.config
    if hasattr(config, "workerinput") and _is_whole_run(config):
        # Processes compile different modules first, so that each finds most of them compiled by another.
        number, total = int(config.workerinput["workerid"].removeprefix("gw")), config.workerinput["workercount"]
        places = [place for place in places_of(ROOT / "tests") if not pytest_ignore_collect(place, config)]
        begin = number * len(places) // total
        config.args = [str(place) for place in (*places[begin:], *places[:begin])]
    # Collecting makes hundreds of thousands of objects that all stay: looking for garbage among them is wasted time.
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_ignore_collect(collection_path, config):
    """Leave out folders and files of the other kind unread: what they import may not be installed."""
    if not _is_whole_run(config):
        return None
    path, is_slow_run = collection_path.relative_to(ROOT).as_posix(), config.getoption("--slow")
    if path == BENCHMARKS:
        return True
    if path.startswith(SLOW):
        has_fast = any(name.startswith(path) or path.startswith(name) for name in FAST)
        is_read = has_fast or not (collection_path.is_dir() or collection_path.name.startswith("test_"))
        return (not is_slow_run and not is_read) or None
    has_none = collection_path.suffix == ".py" and _SLOW_MARK not in collection_path.read_text(encoding="utf-8")
    return (is_slow_run and has_none) or None


@pytest.hookimpl(tryfirst=True)  # before pytest groups tests by their parameters, which depends on the order
def pytest_collection_modifyitems(config, items):
    if _is_whole_run(config):
        is_slow, is_long = bool(config.getoption("--slow")), config.getoption("--long")
        is_kept = [is_slow == _is_slow(item) and (is_long or not item.get_closest_marker("long")) for item in items]
        config.hook.pytest_deselected(items=[item for item, kept in zip(items, is_kept, strict=True) if not kept])
        items[:] = [item for item, kept in zip(items, is_kept, strict=True) if kept]
    changing = [item.nodeid for item in items if CHANGING_NAME.search(item.nodeid)]
    if changing:
        raise pytest.UsageError(f"give these tests ids that are the same in each run: {changing}")
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: (order_of(item.nodeid), item.nodeid.partition("::")[0].split("/")))


def _is_slow(item):
    in_slow_folder = item.nodeid.startswith(SLOW) and not item.nodeid.startswith(FAST)
    return in_slow_folder or item.get_closest_marker("slow") is not None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if hasattr(item.config, "workerinput"):
        report.keywords = {}  # nothing reads them, and every test would send them three times
    return report


def pytest_runtest_logreport(report):
    if report.skipped and not hasattr(report, "wasxfail"):
        _SKIPPED.append(f"{report.nodeid}: {report.longrepr}")


def pytest_sessionfinish(session):
    if session.config.getoption("--forbid-skips") and _SKIPPED:
        print("\nskipped tests are not allowed here:", *_SKIPPED, sep="\n  ")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


class NetworkUsed(RuntimeError):
    """A test reached for a host other than this machine."""


def _check_address(address):
    if isinstance(address, tuple) and address[0] not in _LOOPBACK_HOSTS:
        raise NetworkUsed(f"a test connected to {address[0]}")


def _guarded_connect(self, address):
    _check_address(address)
    _real_connect(self, address)  # type: ignore[arg-type]


def _guarded_connect_ex(self, address):
    _check_address(address)
    return _real_connect_ex(self, address)  # type: ignore[arg-type]


@pytest.fixture(autouse=True, scope="session")
def _loopback_only():
    socket.socket.connect = _guarded_connect  # type: ignore[method-assign,assignment]
    socket.socket.connect_ex = _guarded_connect_ex  # type: ignore[method-assign,assignment]
    yield
    socket.socket.connect = _real_connect  # type: ignore[method-assign]
    socket.socket.connect_ex = _real_connect_ex  # type: ignore[method-assign]


@pytest.fixture(autouse=True, scope="session")
def shared_temporary_folder(tmp_path_factory):
    """The machine's folder for temporary files, for what other accounts have to reach.

    All else that tests and their programs write there goes below pytest's own folder, which pytest removes some runs
    later: a program that a test kills leaves its files.
    """
    shared = Path(tempfile.gettempdir())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("t")))
        patch.setattr(tempfile, "tempdir", None)
        yield shared


@pytest.fixture(autouse=True, scope="session")
def _own_laboratory(tmp_path_factory):
    """Turn off the JupyterLab extension that comes with jupysql, which highlights the same cells as this project's.

    Pages of JupyterLab expose their application, so that tests can open one notebook after the other in one page.
    """
    folder = tmp_path_factory.mktemp("jupyter")
    (folder / "labconfig").mkdir()
    page_config = folder / "labconfig" / "page_config.json"
    page_config.write_text('{"disabledExtensions": {"jupysql-plugin": true}}', encoding="utf-8")
    server_config = folder / "jupyter_server_config.json"
    server_config.write_text('{"LabApp": {"expose_app_in_browser": true}}', encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_CONFIG_PATH", str(folder), prepend=os.pathsep)
        yield


@pytest.fixture(autouse=True, scope="session")
def _light_jupyter(tmp_path_factory):
    """Keep the Jupyter servers and Hubs that tests start from loading what this process leaves out, too."""
    folder = tmp_path_factory.mktemp("left-out")
    (folder / f"{_LEFT_OUT}.py").write_text("raise ImportError('left out by the tests')\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield


@pytest.fixture(scope="session")
def _new_folder(tmp_path_factory):
    """Make empty folders that are numbered by a count.

    `mktemp` finds the next number by listing all folders, which took minutes for some ten thousand tests.
    """
    parent, numbers = tmp_path_factory.mktemp("each"), count()

    def make(name):
        folder = parent / f"{name}{next(numbers)}"
        folder.mkdir(mode=0o700)
        return folder

    return make


@pytest.fixture
def tmp_path(request, _new_folder):
    """An empty folder for this test, as pytest's own."""
    return _new_folder(re.sub(r"\W", "_", request.node.name)[:30])


@pytest.fixture(autouse=True)
def _own_home(_new_folder, monkeypatch):
    """Give each test an empty home folder and an environment without this project's variables."""
    home = _new_folder("home")
    monkeypatch.setenv("HOME", str(home))
    for name in list(os.environ):
        if name.startswith(("MICROMEGAS_", "CLAUDECODE", "CLAUDE_CODE")):
            monkeypatch.delenv(name)
    return home


@pytest.fixture(autouse=True)
def _own_log_handlers():
    """Take away what a command that ran in this process leaves at the root: it writes to that test's standard error."""
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    for handler in list(root.handlers):
        if type(handler) is logging.StreamHandler and handler not in before:
            root.removeHandler(handler)


@pytest.fixture
def clock():
    """A clock that stands at 2026-11-24 12:00 UTC."""
    return FakeClock()
