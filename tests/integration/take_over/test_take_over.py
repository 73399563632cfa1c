"""A running server's sockets are handed to a successor of the same user, and to nobody else."""

import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from micromegas_jupyter.errors import ConfigurationError, ServerUnavailable
from micromegas_jupyter.wiring import take_over as module
from micromegas_jupyter.wiring.take_over import ReservedPort, TakeOverListener, find_take_over_address, take_over

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not module.is_take_over_supported(), reason="sockets are handed over on Linux"),
]

HOST = "127.0.0.1"
NOBODY = 65534


@pytest.fixture(autouse=True)
def runtime(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("run")
    folder.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(folder.parent))
    return folder


@pytest.fixture
def running():
    command = [sys.executable, str(Path(__file__).with_name("running_child.py")), HOST]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        port, http_port = map(int, process.stdout.readline().split())
        key = find_take_over_address(HOST, port, os.environ)
        yield SimpleNamespace(process=process, port=port, http_port=http_port, key=key)
        process.kill()


@contextmanager
def taking(key):
    """Take a server over, and close what was taken afterwards."""
    taken = take_over(key)
    yield taken
    for each in taken.sockets.values():
        each.close()


@contextmanager
def listening():
    """Listen in this process; `on_taken` is set once a successor serves."""
    with closing(ReservedPort(HOST, 0)) as reserved:
        key = find_take_over_address(HOST, reserved.number, os.environ)
        on_taken = threading.Event()
        listener = TakeOverListener(key.path, {"grpc": reserved.socket}, on_taken.set)
        listener.start()
        try:
            yield key, on_taken
        finally:
            listener.stop()


def _kill(running):
    running.process.kill()
    running.process.wait()


def test_sockets_and_state_go_over_and_the_server_drains_once_told(running):
    with taking(running.key) as taken:
        grpc, http = taken.sockets["grpc"], taken.sockets["http"]
        assert grpc.getsockname() == (HOST, running.port)
        assert grpc.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 1
        assert not any(os.get_inheritable(each.fileno()) for each in (grpc, http))
        assert taken.state == {"ticket_key": "sesame"}
        taken.confirm_serving()
        assert running.process.stdout.readline() == "taken\n"
        _kill(running)
        with socket.create_connection((HOST, running.http_port)):
            http.accept()[0].close()
        with pytest.raises(ConfigurationError):
            ReservedPort(HOST, running.port)


def test_a_successor_serves_on_when_the_server_is_killed(running):
    with taking(running.key) as taken:
        _kill(running)

        taken.confirm_serving()

        with socket.create_connection((HOST, running.http_port)):
            pass


def test_a_successor_that_is_not_let_must_not_serve(monkeypatch):
    monkeypatch.setattr(module, "_START_SECONDS", 0.01)
    monkeypatch.setattr(module, "_END_SECONDS", 0.01)
    with listening() as (key, on_taken), taking(key) as taken:
        taken._connection.recv(1)  # the listener has given up waiting

        with pytest.raises(ServerUnavailable, match="did not release"):
            taken.confirm_serving()

    assert not on_taken.is_set()


def test_of_many_successors_at_once_one_takes_over(running):
    start = threading.Barrier(6)

    def succeed():
        start.wait()
        return take_over(running.key)

    with ThreadPoolExecutor(6) as threads:
        tries = [threads.submit(succeed) for _ in range(6)]

    refused = [one for one in tries if isinstance(one.exception(), ServerUnavailable)]
    (taken,) = [one.result() for one in tries if one not in refused]
    taken.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"not JSON",
        json.dumps({"version": 2, "sockets": [], "state": {}}).encode(),
        json.dumps({"version": 1, "sockets": ["grpc"], "state": {}}).encode(),
        json.dumps({"version": 1, "sockets": [], "state": {}}).encode(),
    ],
)
def test_a_server_that_hands_over_otherwise_is_left_alone(answer):
    key = find_take_over_address(HOST, 1, os.environ)

    def answer_once(listening):
        connection, _ = listening.accept()
        with connection:
            connection.recv(1024)
            connection.send(answer)

    with _bind(key.path) as listening, ThreadPoolExecutor(1) as thread:
        listening.listen()
        answering = thread.submit(answer_once, listening)

        with pytest.raises(ServerUnavailable):
            take_over(key)

        answering.result()


def test_a_process_that_the_server_started_gets_nothing(caplog):
    program = (
        "import os; from micromegas_jupyter.wiring.take_over import find_take_over_address, take_over\n"
        "take_over(find_take_over_address({!r}, {!r}, os.environ))"
    )
    with listening() as (key, on_taken):
        command = [sys.executable, "-c", program.format(*key.listening)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert "ServerUnavailable" in done.stderr
    assert not on_taken.is_set()
    assert "a process that this server started" in caplog.text


def _bind(path):
    path.parent.mkdir(mode=0o700, exist_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.bind(str(path))
    return made


def _link(path):
    _bind(path.with_name("elsewhere")).close()
    path.symlink_to(path.with_name("elsewhere"))


def _file(path):
    path.parent.mkdir(mode=0o700)
    path.touch()


def _open_folder(path):
    path.parent.mkdir(mode=0o700)
    path.parent.chmod(0o750)


def _linked_folder(path):
    path.parent.with_name("elsewhere").mkdir(mode=0o700)
    path.parent.symlink_to(path.parent.with_name("elsewhere"))


def _anothers_folder(path):
    path.parent.mkdir(mode=0o700)
    os.chown(path.parent, NOBODY, NOBODY)


def _anothers_socket(path):
    _bind(path).close()
    os.chown(path, NOBODY, NOBODY)


ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


@pytest.mark.parametrize(
    "prepare",
    [
        _link,
        _file,
        _open_folder,
        _linked_folder,
        pytest.param(_anothers_folder, marks=ROOT_ONLY),
        pytest.param(_anothers_socket, marks=ROOT_ONLY),
    ],
)
def test_what_is_not_certainly_this_users_is_refused(prepare):
    with closing(ReservedPort(HOST, 0)) as reserved:
        key = find_take_over_address(HOST, reserved.number, os.environ)
        prepare(key.path)

        with pytest.raises(ConfigurationError, match="XDG_RUNTIME_DIR") as taking:
            take_over(key)
        with pytest.raises(ConfigurationError) as waiting:
            TakeOverListener(key.path, {"grpc": reserved.socket}, lambda: None).start()

    assert (taking.value.key, waiting.value.key) == ("--take-over", "--take-over")


@ROOT_ONLY
def test_another_user_gets_nothing_even_where_folder_and_socket_are_open(runtime):
    with listening() as (key, _):
        path = key.path
        for folder in (*runtime.parents[:-2], runtime, path.parent):
            folder.chmod(folder.stat().st_mode | 0o711)
        path.chmod(0o666)

        answer = subprocess.run(
            [sys.executable, "-c", _ASK_AS_NOBODY, str(path)], capture_output=True, text=True, check=True
        )

    assert answer.stdout == "b'' []\n"


_AS_NOBODY = f"""
import os, socket, sys
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
"""
_ASK_AS_NOBODY = f"""{_AS_NOBODY}
connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
connection.connect(sys.argv[1])
try:
    connection.send(b'{{"do": "take"}}')
except BrokenPipeError:
    pass  # it was let go already
try:
    data, descriptors, _, _ = socket.recv_fds(connection, 1024, 8)
except ConnectionResetError:
    data, descriptors = b"", []
print(data, descriptors)
"""


@ROOT_ONLY
def test_another_users_listener_is_not_asked():
    key = find_take_over_address(HOST, 1, os.environ)
    with _bind(key.path) as bound:
        command = [sys.executable, "-c", _LISTEN_AS_NOBODY, str(bound.fileno())]
        with subprocess.Popen(
            command, pass_fds=[bound.fileno()], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout.readline() == b"listens\n"

            with pytest.raises(ConfigurationError, match="another user"):
                take_over(key)

            process.kill()


_LISTEN_AS_NOBODY = f"""{_AS_NOBODY}
socket.socket(fileno=int(sys.argv[1])).listen()
print("listens", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("given", [None, "open"])
def test_without_a_private_runtime_folder_there_is_one_below_that_for_temporary_files(runtime, monkeypatch, given):
    (runtime / "open").mkdir(mode=0o755)
    environ = {} if given is None else {"XDG_RUNTIME_DIR": str(runtime / given)}

    key = find_take_over_address(HOST, 50051, environ)

    assert key.path.parent == runtime.parent / f"micromegas-{os.geteuid()}"


def test_without_any_folder_for_temporary_files_a_server_cannot_be_found(monkeypatch):
    def fail():
        raise FileNotFoundError

    monkeypatch.setattr(module.tempfile, "gettempdir", fail)

    with pytest.raises(ConfigurationError):
        find_take_over_address(HOST, 50051, {})
