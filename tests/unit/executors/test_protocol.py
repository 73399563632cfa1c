"""Messages between the front and an executor, and what an executor leaves behind."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
import weakref
from unittest.mock import MagicMock

import pytest

from micromegas_jupyter.engine.contract import ScanProgress
from micromegas_jupyter.executors import launcher, protocol, worker
from micromegas_jupyter.executors.launcher import Channel, Executor, ExecutorEnded, run_in_thread
from micromegas_jupyter.executors.worker import Outbox
from micromegas_jupyter.executors.zygote import read_tail
from tests.fakes.waiting import wait_until


def _message(kind, body, *, length=None):
    return protocol.HEAD.pack(kind, len(body) if length is None else length) + body


def _read_all(write, count):
    """Return what the front reads of what an executor writes."""

    async def scenario():
        mine, theirs = socket.socketpair()
        executor = Executor(MagicMock(pid=0), mine)
        writing = threading.Thread(target=lambda: (write(theirs), theirs.close()))
        writing.start()
        try:
            return [await executor.read() for _ in range(count)]
        finally:
            executor.close()
            writing.join()

    return asyncio.run(scenario())


def test_a_large_message_is_read_whole_and_the_next_ones_are_not_lost():
    sent = [(protocol.FRAME, bytes(range(256)) * 20_000), (protocol.FRAME, b""), (protocol.END, b"{}")]

    found = _read_all(lambda connection: connection.sendall(b"".join(_message(*one) for one in sent)), 3)

    assert found == sent


def test_a_large_message_that_is_there_at_once_leaves_the_event_loop_to_others(monkeypatch):
    pieces, piece_bytes = 12, 4096
    monkeypatch.setattr(launcher, "_RECEIVE_BYTES", piece_bytes)
    monkeypatch.setattr(launcher, "_LARGE_RECEIVE_BYTES", piece_bytes)
    turns = 0

    async def take_turns():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def scenario():
        mine, theirs = socket.socketpair()
        theirs.setblocking(False)  # all of it is sent before any is read
        theirs.sendall(_message(protocol.FRAME, bytes(pieces * piece_bytes)))
        other = asyncio.create_task(take_turns())
        channel = Channel(mine)
        await channel.read()
        other.cancel()
        channel.close()
        theirs.close()

    asyncio.run(scenario())

    assert turns >= pieces - 1


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"F",
        _message(protocol.FRAME, b"half", length=8),
        _message(protocol.FRAME, b"", length=protocol.MAX_FRAME_BYTES + 1),
    ],
    ids=["nothing", "half a head", "half a body", "an enormous length"],
)
def test_what_cannot_be_read_ends_the_executor(stream):
    with pytest.raises(ExecutorEnded):
        _read_all(lambda connection: connection.sendall(stream), 1)


def test_a_small_result_is_one_message():
    front, theirs = socket.socketpair()
    outbox = Outbox(theirs)

    with front, theirs:
        outbox.add(protocol.READS, 2, b"{}")
        outbox.add(protocol.FRAME, 4, b"ro", b"ws")
        outbox.add(protocol.END, 2, b"{}", at_once=True)
        found = front.recv(1024)

    assert found == b"".join(
        [_message(protocol.READS, b"{}"), _message(protocol.FRAME, b"rows"), _message(protocol.END, b"{}")]
    )


def test_rows_do_not_wait_for_the_end_of_a_slow_statement():
    front, theirs = socket.socketpair()
    outbox = Outbox(theirs)
    outbox.watch()

    with front, theirs:
        front.settimeout(60)
        found = []
        for rows in (b"first", b"second"):
            outbox.add(protocol.FRAME, len(rows), rows)
            found.append(front.recv(1024))

    assert found == [_message(protocol.FRAME, b"first"), _message(protocol.FRAME, b"second")]


def test_nothing_follows_a_message_that_was_sent_in_part():
    front, theirs = socket.socketpair()
    outbox = Outbox(theirs)
    theirs.settimeout(0.05)  # as when there is no memory to send the rest
    size = 16 * 1024 * 1024

    with front, theirs:
        with pytest.raises(TimeoutError):
            outbox.add(protocol.FRAME, size, bytes(size))
        with pytest.raises(OSError, match="pipe"):
            outbox.add(protocol.ERROR, 2, b"{}", at_once=True)
        front.settimeout(60)
        found = b"".join(iter(lambda: front.recv(1 << 20), b""))

    assert found == _message(protocol.FRAME, bytes(len(found) - protocol.HEAD.size), length=size)


def test_rows_come_when_their_progress_cannot_be_found(monkeypatch):
    monkeypatch.setattr(worker, "_PROGRESS_SECONDS", 0.0)
    front, theirs = socket.socketpair()
    outbox, asked = Outbox(theirs), threading.Event()

    def find():
        asked.set()
        raise SystemExit  # like a panic of the engine, no Exception

    with front, theirs:
        front.settimeout(20)
        outbox.report(find)
        outbox.watch()
        asked.wait(60)
        outbox.add(protocol.FRAME, 4, b"rows")
        assert front.recv(1024) == _message(protocol.FRAME, b"rows")


def test_what_finds_progress_is_dropped_with_its_statement(monkeypatch):
    monkeypatch.setattr(worker, "_PROGRESS_SECONDS", 3600.0)

    class Find:
        def __call__(self):
            return None

    front, theirs = socket.socketpair()
    outbox, find = Outbox(theirs), Find()
    dropped = weakref.ref(find)

    with front, theirs:
        outbox.watch()
        outbox.report(find)
        wait_until(lambda: not outbox._is_watched, "the next report is far away")
        outbox.report(None)
        del find
        wait_until(lambda: dropped() is None, "it is dropped", seconds=10)


def test_progress_comes_after_a_schema_that_was_sent_at_once(monkeypatch):
    monkeypatch.setattr(worker, "_PROGRESS_SECONDS", 0.0)
    front, theirs = socket.socketpair()
    outbox = Outbox(theirs)

    with front, theirs:
        front.settimeout(20)
        outbox.watch()
        wait_until(lambda: not outbox._is_watched, "nothing was sent for a while")
        schema = bytes(worker._TOGETHER_BYTES)
        outbox.add(protocol.FRAME, len(schema), schema)
        outbox.report(lambda: ScanProgress(2, 0.5))
        reader = protocol.Requests(front)
        assert [reader.receive()[0], reader.receive()[0]] == [protocol.FRAME, protocol.PROGRESS]
        outbox.report(None)


def test_a_function_that_hangs_keeps_no_other_from_its_thread():
    go_on = threading.Event()

    async def scenario():
        hanging = asyncio.create_task(run_in_thread(lambda: go_on.wait(60), name="hanging"))
        found = [await run_in_thread(lambda n=n: n, name="other") for n in range(20)]
        go_on.set()
        return found, await hanging

    assert asyncio.run(scenario()) == (list(range(20)), True)


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a zygote runs on Linux")

_LIMITED = """
import encodings.ascii, os, resource  # the interpreter may be out of reach for another user
from micromegas_jupyter.executors.settings import WorkerOptions
from micromegas_jupyter.executors.settings import hide_memory, limit_process
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
hide_memory()
limit_process(WorkerOptions(lake=None, denials_file=None, spill_directory="/", data_limit_bytes=None))
print(open("/proc/self/oom_score_adj").read(), os.access("/proc/self/environ", os.R_OK))
"""


_KEEPING = """
import resource
from micromegas_jupyter.executors.settings import keep_freed_memory
keep_freed_memory()
def use_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    messages = [b"x" * (2 << 20) for _ in range(6)]
    del messages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
use_memory()
print(max(use_memory() for _ in range(20)))
"""


def test_the_memory_of_messages_is_used_again_without_the_system():
    done = subprocess.run([sys.executable, "-c", _KEEPING], capture_output=True, text=True, check=True, timeout=120)

    assert int(done.stdout) < 100  # of 3,072 pages


def test_what_stands_in_place_of_the_file_delays_nobody_and_is_not_followed(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "secret").write_text("a secret", encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "secret")

    assert read_tail(tmp_path / "pipe") == read_tail(tmp_path / "link") == ""


def test_executors_of_any_user_end_first_when_the_machine_has_no_memory():
    done = subprocess.run([sys.executable, "-c", _LIMITED], capture_output=True, text=True, check=True, timeout=120)

    # And their memory is hidden again.
    assert done.stdout.split() == ["500", "False"], done.stderr


@pytest.mark.parametrize(
    "claimed", [None, [], {}, [1], ["1", 0.5], [-1, 0.5], [2**31, 0.5], [1, -0.1], [1, float("nan")], [1, 2]]
)
def test_what_an_executor_says_of_its_progress_is_a_share_or_nothing(claimed):
    assert protocol.parse_progress({"progress": claimed}) is None


def test_progress_and_explained_tables_come_as_they_were_sent():
    assert protocol.parse_progress({"progress": [812, 0.37]}) == (812, 0.37)
    assert protocol.parse_explained({"explained": [["t", 1, 2, None, 3]]}) == (("t", 1, 2, None, 3),)
    assert protocol.parse_explained({"explained": [["t", 1]]}) == protocol.parse_explained({}) == ()
