"""What front and executor send each other arrives whole, in whatever pieces the socket hands it over."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.errors import InternalError, InvalidStatement, MicromegasError, ResourcesExhausted
from micromegas_jupyter.executors import protocol
from micromegas_jupyter.executors.launcher import Executor, ExecutorEnded

if TYPE_CHECKING:
    from collections.abc import Callable


class NoProcess:
    """A process that is not there."""

    pid = 0

    def signal(self, number: int) -> None:
        """Do nothing."""


def _message(kind: bytes, body: bytes, *, length: int | None = None) -> bytes:
    return protocol.HEAD.pack(kind, 0, len(body) if length is None else length) + body


def _read_all(write: Callable[[socket.socket], object], count: int) -> list[tuple[bytes, bytes]]:
    """Return what the front reads of what an executor writes."""

    async def scenario() -> list[tuple[bytes, bytes]]:
        mine, theirs = socket.socketpair()
        executor = Executor(NoProcess(), mine)
        writing = threading.Thread(target=lambda: (write(theirs), theirs.close()))
        writing.start()
        try:
            return [await executor.read() for _ in range(count)]
        finally:
            executor.close()
            writing.join()

    return asyncio.run(scenario())


def test_pieces_are_sent_in_their_order_also_when_there_are_many_and_large_ones() -> None:
    pieces = [bytes([number % 256]) * (number % 7 * 20_000) for number in range(1500)]
    mine, theirs = socket.socketpair()
    received = bytearray()

    def receive() -> None:
        while chunk := theirs.recv(1 << 16):
            received.extend(chunk)

    receiving = threading.Thread(target=receive)
    receiving.start()
    with mine:
        protocol.send_pieces(mine, [*pieces, memoryview(b"end")])
    receiving.join()
    theirs.close()

    assert bytes(received) == b"".join(pieces) + b"end"


def test_messages_are_read_whole_in_whatever_pieces_they_come() -> None:
    messages = [(protocol.FRAME, b"first"), (protocol.FRAME, b""), (protocol.END, b"{}")]
    stream = b"".join(_message(*message) for message in messages)

    def write(connection: socket.socket) -> None:
        for place in range(len(stream)):
            connection.sendall(stream[place : place + 1])

    assert _read_all(write, 3) == messages
    assert _read_all(lambda connection: connection.sendall(stream), 3) == messages


def test_a_large_message_is_read_whole_and_the_next_one_is_not_lost() -> None:
    large = bytes(range(256)) * 20_000

    found = _read_all(
        lambda connection: connection.sendall(_message(protocol.FRAME, large) + _message(protocol.END, b"{}")), 2
    )

    assert found == [(protocol.FRAME, large), (protocol.END, b"{}")]


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
def test_what_cannot_be_read_ends_the_executor(stream: bytes) -> None:
    with pytest.raises(ExecutorEnded):
        _read_all(lambda connection: connection.sendall(stream), 1)


@pytest.mark.parametrize(
    "error",
    [
        InvalidStatement("No such column.", line=1, column=14),
        ResourcesExhausted("Too large.", limit="result_bytes"),
        ResourcesExhausted("Too much."),
    ],
)
def test_an_error_comes_back_as_it_was(error: MicromegasError) -> None:
    facts = protocol.parse_json(protocol.build_error(error, {"cpu_seconds": 1.5}))
    found = protocol.parse_error(facts)

    assert (type(found), str(found), facts["cpu_seconds"]) == (type(error), str(error), 1.5)
    assert getattr(found, "limit", None) == getattr(error, "limit", None)


@pytest.mark.parametrize("facts", [{}, {"error": "noise"}, {"error": 7, "limit": 8}])
def test_an_error_that_cannot_be_read_is_a_defect(facts: dict[str, object]) -> None:
    assert type(protocol.parse_error(facts)) is InternalError


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"7"])
def test_an_answer_that_is_no_object_is_a_defect(body: bytes) -> None:
    with pytest.raises(InternalError):
        protocol.parse_json(body)


@pytest.mark.parametrize("pair", [(b"", b""), (b"a", b""), (b"", b"b"), (b"a" * 300, b"bc")])
def test_a_pair_comes_back(pair: tuple[bytes, bytes]) -> None:
    assert protocol.parse_pair(protocol.build_pair(*pair)) == pair


def test_half_a_pair_is_a_defect() -> None:
    with pytest.raises(InternalError):
        protocol.parse_pair(b"\x01\x00")
