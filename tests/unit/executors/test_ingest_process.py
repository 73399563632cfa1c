"""The process that stores rows is started once, is replaced when it stops answering, and its work takes a place."""

import asyncio
import signal

import psutil
import pyarrow as pa
import pytest

from micromegas_jupyter.core.protocols import WriteMode, WriteRequest
from micromegas_jupyter.errors import ServerUnavailable
from micromegas_jupyter.executors import ingest
from micromegas_jupyter.executors.ingest import IngestCall, IngestProcess
from micromegas_jupyter.executors.protocol import Upload
from micromegas_jupyter.executors.scheduling import RunningLimit
from micromegas_jupyter.executors.settings import IngestSettings
from tests.fakes.fixed_tables import encode_stream
from tests.fakes.servers import build_pool
from tests.fakes.waiting import until

ANN = ("none", "ann")


@pytest.fixture
def bench(tmp_path):
    with asyncio.Runner() as runner:
        pool = build_pool(worker={"lake": str(tmp_path)})
        runner.run(pool.open())
        yield runner, pool
        runner.run(pool.close())


def _call(process, limit=None):
    return IngestCall(
        process, ANN, slots=limit or RunningLimit(max_running=2, max_per_caller=2, queue_timeout_seconds=1)
    )


async def _list(process):
    async with _call(process) as call:
        return await call.operate("list", {})


async def _stop(process):
    """Stop the process, and wait until it is: one of its threads could still answer before."""
    executor = process._executor
    executor.process.send_signal(signal.SIGSTOP)
    stopped = psutil.Process(executor.process.pid)
    await until(lambda: stopped.status() == psutil.STATUS_STOPPED, "it is stopped")


def test_calls_that_are_given_up_at_the_start_leave_one_process(bench):
    runner, pool = bench

    async def scenario():
        process = IngestProcess(pool)
        for _ in range(3):
            task = asyncio.create_task(_list(process))
            # What the call before began may have started meanwhile, and answers this one.
            await until(lambda: process._starting is not None or task.done(), "it is starting")  # noqa: B023
            task.cancel()
            await asyncio.wait({task})
        return await _list(process), len(pool._detached)

    assert runner.run(scenario()) == ({"owners": {}}, 1)


def test_a_process_that_does_not_answer_is_replaced(bench, monkeypatch):
    monkeypatch.setattr(ingest, "_CHECK_INTERVAL_SECONDS", 0.5)
    runner, pool = bench

    async def scenario():
        process = IngestProcess(pool)
        await _list(process)
        await _stop(process)
        # A process that is not stopped may take longer than that on a busy machine.
        with monkeypatch.context() as patch:
            patch.setattr(ingest, "_CHECK_SECONDS", 0.2)
            with pytest.raises(ServerUnavailable):
                await _list(process)
        return await _list(process)

    assert runner.run(scenario()) == {"owners": {}}


async def _upload(call, before_commit):
    request = WriteRequest(table="kept", mode=WriteMode.CREATE)
    async with call:
        await call.begin_upload(Upload(request=request, limits=IngestSettings(), row_count=None))
        for frame in encode_stream(pa.table({"n": [1]})):
            await call.send_rows(frame)
        await before_commit()
        await call.commit_upload()


def test_rows_whose_process_is_killed_before_their_commit_are_said_not_to_be_stored(bench):
    runner, pool = bench

    async def scenario():
        process = IngestProcess(pool)

        async def kill():
            process._executor.process.send_signal(signal.SIGKILL)
            await process._executor.ended

        await _upload(_call(process), kill)

    with pytest.raises(ServerUnavailable, match="none of these rows were stored"):
        runner.run(scenario())


def test_rows_whose_process_is_killed_during_their_commit_are_not_said_to_be_lost(bench):
    runner, pool = bench

    async def scenario():
        process = IngestProcess(pool)
        call = _call(process)

        task = asyncio.create_task(_upload(call, lambda: _stop(process)))
        await until(lambda: call._is_committing, "the commit is requested")
        process._executor.process.send_signal(signal.SIGKILL)
        await task

    with pytest.raises(ServerUnavailable, match="unknown whether"):
        runner.run(scenario())


def test_work_that_nobody_waits_for_any_more_takes_a_place_until_it_is_done(bench):
    runner, pool = bench

    async def scenario():
        process = IngestProcess(pool)
        await _list(process)
        limit = RunningLimit(max_running=2, max_per_caller=2, queue_timeout_seconds=1)
        call = _call(process, limit)

        async def operate():
            async with call:
                await call.operate("list", {})

        await _stop(process)
        task = asyncio.create_task(operate())
        await until(lambda: call._is_waiting, "it is asked")
        task.cancel()
        await asyncio.wait({task})
        taken = limit.running_count
        process._executor.process.send_signal(signal.SIGCONT)
        await until(lambda: limit.running_count == 0, "the place is free")
        return taken

    assert runner.run(scenario()) == 1
