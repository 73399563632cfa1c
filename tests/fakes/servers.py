"""Real executors, and a real server over them, for tables that a test wrote.

The processes that executors are forked from take a second to start, so they outlive the servers that use them: the
next server with the same options takes one over.
"""

import asyncio
import atexit
import signal
import tempfile
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import replace

from micromegas_jupyter.executors.launcher import SpawnLauncher, ZygoteLauncher, can_fork
from micromegas_jupyter.executors.pool import Pool
from micromegas_jupyter.executors.settings import PoolSettings, WorkerOptions
from micromegas_jupyter.server.flight_server import ServerThread
from micromegas_jupyter.server.settings import FlightServerSettings
from tests.fakes.fixed_tables import FixedTables
from tests.fakes.validator import FakeValidator

_CLOSE_SECONDS = 30.0

NUMBERS = "SELECT n FROM (VALUES (1), (2), (3)) AS t(n)"
WORDS = "SELECT arrow_cast(w, 'Dictionary(Int32, Utf8)') AS word FROM (VALUES ('a'), ('b'), ('a')) AS t(w)"
LARGE = "SELECT value AS n FROM generate_series(0, 999999)"
ENDLESS = "SELECT value AS n FROM generate_series(1, 1000000000000)"
#: Gives three rows and then no more, though it does not end.
WAITING = (
    f"{NUMBERS} UNION ALL SELECT count(*) FROM generate_series(1, 1000000000) AS a, generate_series(1, 1000000000) AS b"
)
FAILS_LATE = "SELECT 1 / (value - 900000) AS n FROM generate_series(1, 1000000)"
#: Takes all memory that it may have, at once.
HUGE = "SELECT arrow_cast([1], 'FixedSizeList(2147483647, Int64)')"


class LastingZygote(ZygoteLauncher):
    """Serves one pool after another; ends with the test run."""

    _is_open = False

    @property
    def worker_options(self):
        return self._options

    async def open(self, on_started, on_ended, on_failed):
        if not self._is_open:
            self._is_open = True
            await super().open(on_started, on_ended, on_failed)
            return
        self._on_started, self._on_ended, self._on_failed = on_started, on_ended, on_failed
        asyncio.get_running_loop().add_reader(self._control, self._read_control)

    async def close(self):
        """End the executors only, and hear of all their ends, so that the next pool hears of none."""
        all_ended = asyncio.Event()

        def end(process, connection):
            connection.close()
            process.send_signal(signal.SIGKILL)

        def note_end(_pid=0, _ended=None):
            if not (self._processes or self._requested):
                all_ended.set()

        self._on_started, self._on_ended, self._on_failed = end, note_end, note_end
        for process in self._processes.values():
            process.send_signal(signal.SIGKILL)
        note_end()
        async with asyncio.timeout(_CLOSE_SECONDS):
            await all_ended.wait()
        asyncio.get_running_loop().remove_reader(self._control)
        if self._restart is None:
            _UNUSED[_key(self._options)].append(self)
        else:  # it was killed by the test, and another one may be about to start
            self._restart.cancel()
            self.abandon()


_UNUSED = defaultdict(list)


def _key(options):
    return replace(options, spill_directory="")


@atexit.register
def _end_unused():
    for zygotes in _UNUSED.values():
        for zygote in zygotes:
            zygote.abandon()


def build_pool(tables=None, *, worker=None, lasts=True, **settings):
    """Return a pool that is not open yet."""
    options = WorkerOptions(**{"lake": None, "denials_file": None, "spill_directory": "", **(worker or {})})
    pool_settings = PoolSettings(**{"max_executors": 8, "spare_executors": 1, "processors": 2, **settings})
    unused = _UNUSED[options] if lasts else []
    if unused:
        launcher = unused.pop()
        options = launcher.worker_options
    else:
        options = replace(options, spill_directory=tempfile.mkdtemp(prefix="spilled"))
        kind = (LastingZygote if lasts else ZygoteLauncher) if can_fork() else SpawnLauncher
        launcher = kind(options)
    return Pool(launcher, tables or FixedTables(), settings=pool_settings, options=options)


@contextmanager
def open_server(pool=None, *, validator=None, is_open=False, engine=None, **settings):
    """Run a server on a free port."""
    server = ServerThread(
        pool=pool or build_pool(),
        validator=None if is_open else validator or FakeValidator(),
        settings=FlightServerSettings(**{"port": 0, **settings}),
        engine=engine,
    )
    server.start()
    try:
        yield server
    finally:
        server.stop(grace_seconds=0)
