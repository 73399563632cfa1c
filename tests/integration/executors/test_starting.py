"""How executors start: forked from a zygote, as new interpreters where forking is not safe, again after its end."""

import asyncio
import logging
import os
import socket
import threading
from pathlib import Path
from unittest.mock import AsyncMock

import pytest

from micromegas_jupyter.errors import InternalError, ResourcesExhausted
from micromegas_jupyter.executors import launcher as processes
from micromegas_jupyter.executors import pool as pool_module
from micromegas_jupyter.executors.launcher import SpawnLauncher, ZygoteLauncher
from micromegas_jupyter.executors.pool import Pool, RunningStatement
from micromegas_jupyter.executors.protocol import Output, Statement
from micromegas_jupyter.executors.settings import PoolSettings, WorkerOptions
from micromegas_jupyter.server import flight_server
from tests.fakes.fixed_tables import CALLER, FixedTables
from tests.fakes.servers import HUGE, open_server
from tests.integration.executors.server_process import ServerProcess, wait_until


class Asked:
    """A pool whose executors come from a launcher; what was run has a way to its report and its executor."""

    def __init__(self, launcher, options):
        settings = PoolSettings(spare_executors=1, max_executors=4)
        self.pool = Pool(launcher, FixedTables(), settings=settings, options=options)

    async def __aenter__(self):
        await self.pool.open()
        return self

    async def __aexit__(self, *_error):
        await self.pool.close()

    async def ask(self, sql):
        """Run a statement to its end."""
        running = RunningStatement(self.pool, ("test", "ann"))
        async with running:
            await running.run(Statement(sql=sql, caller=CALLER), output=Output(), write=AsyncMock())
        return running

    async def fail(self):
        """Run a statement that ends its executor."""
        with pytest.raises(ResourcesExhausted):
            await self.ask(HUGE)

    async def check(self):
        assert (await self.ask("SELECT 1")).report.rows == 1


@pytest.fixture
def options(tmp_path):
    return WorkerOptions(lake=None, denials_file=None, spill_directory=str(tmp_path))


def test_new_interpreters_run_and_replace_executors_as_forks_do(options, tmp_path):
    async def scene():
        async with Asked(SpawnLauncher(options), options) as pool:
            await pool.check()
            await pool.fail()
            await pool.check()

    asyncio.run(scene())
    assert {path.name for path in tmp_path.iterdir()} == {"stderr"}  # no executor's folder


def test_a_zygote_in_which_a_library_has_started_a_thread_is_not_forked(options, monkeypatch, caplog):
    # Arrow's allocator starts a thread of its own where nothing tells it not to; so does OpenBLAS.
    monkeypatch.setattr(processes, "VARIABLES", {"OPENBLAS_NUM_THREADS": "2", "MIMALLOC_ARENA_EAGER_COMMIT": "0"})

    async def scene():
        launcher = ZygoteLauncher(options)
        async with Asked(launcher, options) as pool:
            running = await pool.ask("SELECT 1")
            assert running.executor.process.pid != launcher._zygote.pid

    with caplog.at_level(logging.WARNING, logger="micromegas_jupyter.executors"):
        asyncio.run(scene())
    assert "each executor is a new interpreter" in caplog.text


def test_without_free_descriptors_an_executor_is_lost_and_the_next_one_is_not(options, monkeypatch, caplog):
    receive = socket.recv_fds
    lost = []

    def receive_one(*arguments):
        """Receive as the system does where one more descriptor can be had (cmsg(3), MSG_CTRUNC)."""
        data, descriptors, flags, address = receive(*arguments)
        if len(descriptors) == 2 and not lost:
            lost.append(descriptors.pop())
            os.close(lost[0])
        return data, descriptors, flags, address

    async def scene():
        async with Asked(ZygoteLauncher(options), options) as pool:
            monkeypatch.setattr(processes.socket, "recv_fds", receive_one)
            for _ in range(3):
                await pool.fail()
            await pool.check()
            assert lost

    asyncio.run(scene())
    assert "may open no more files" in caplog.text


def test_a_zygote_that_gets_a_second_thread_later_is_asked_no_more(options, monkeypatch, caplog):
    receive = socket.recv_fds

    def receive_report(*arguments):
        """Receive what such a zygote reports in place of an executor."""
        data, descriptors, flags, address = receive(*arguments)
        if b"started" not in data:
            return data, descriptors, flags, address
        for descriptor in descriptors:
            os.close(descriptor)
        return b'{"threads": 2}', [], flags, address

    async def scene():
        async with Asked(ZygoteLauncher(options), options) as pool:
            monkeypatch.setattr(processes.socket, "recv_fds", receive_report)
            for _ in range(2):
                await pool.fail()
            await pool.check()

    asyncio.run(scene())
    assert caplog.text.count("each executor is a new interpreter") == 1


@pytest.mark.parametrize(
    "replace", [os.mkfifo, lambda path: path.symlink_to(path.with_name("other"))], ids=["pipe", "link"]
)
def test_executors_start_if_one_has_replaced_the_file_for_errors(options, tmp_path, replace):
    other = tmp_path / "other"
    other.write_bytes(b"x" * 100_000)
    replace(tmp_path / "stderr")

    async def scene():
        async with Asked(ZygoteLauncher(options), options) as pool:
            await pool.check()

    asyncio.run(scene())
    assert other.stat().st_size == 100_000


def test_folders_of_executors_that_ended_with_the_zygote_are_removed_off_the_event_loop(options, tmp_path, monkeypatch):
    removers = []
    remove = processes.shutil.rmtree

    def note_thread(path, **arguments):
        removers.append(threading.current_thread())
        remove(path, **arguments)

    async def scene():
        launcher = ZygoteLauncher(options)
        async with Asked(launcher, options) as pool:
            executor = next(iter(pool.pool._executors.values()))
            monkeypatch.setattr(processes.shutil, "rmtree", note_thread)
            launcher._zygote.kill()
            await executor.ended
            await pool.check()

    asyncio.run(scene())
    assert removers
    assert threading.main_thread() not in removers


def test_a_server_waits_longer_than_its_executors_may_take_and_reports_those_that_take_longer(monkeypatch):
    assert flight_server._START_SECONDS > pool_module._START_SECONDS
    monkeypatch.setattr(pool_module, "_START_SECONDS", 0)

    with pytest.raises(InternalError, match="did not start in time"), open_server():
        pass


def test_neither_a_server_nor_its_executors_load_pandas(tmp_path):
    """It is half of what they would import, and pyarrow loads it unless that is prevented before the first array."""
    with ServerProcess(tmp_path / "server", lake=tmp_path / "lake", keys={}, options=["--no-telemetry"]) as server:
        wait_until(lambda: len(server.processes()) > 2, "executors wait for statements")

        libraries = {each.pid: {Path(file.path).name for file in each.memory_maps()} for each in server.processes()}

    assert all(any("libarrow_python" in name for name in names) for names in libraries.values())
    assert not [name for names in libraries.values() for name in names if "hashtable" in name]
