"""What a caller is told of a statement that was ended, from how its process ended and what the server decided."""

from __future__ import annotations

import signal

import pytest

from micromegas_jupyter.errors import (
    DeadlineExceeded,
    MicromegasError,
    QueryCancelled,
    ResourcesExhausted,
    ServerUnavailable,
)
from micromegas_jupyter.executors.launcher import Ended
from micromegas_jupyter.executors.scheduling import CHARGED, Cause, build_error, find_cause
from micromegas_jupyter.executors.settings import MIB, PoolSettings, WorkerOptions


@pytest.mark.parametrize(
    ("ended", "cause"),
    [
        (Ended(), Cause.LOST),
        (Ended(code=-signal.SIGABRT), Cause.CRASH),
        (Ended(code=1), Cause.CRASH),
        (Ended(code=-signal.SIGKILL), Cause.KILLED),
        (Ended(code=-signal.SIGPROF), Cause.PLANNING),
        (Ended(code=-signal.SIGSEGV), Cause.STACK),
        (Ended(code=-signal.SIGABRT, error="thread 'main' has overflowed its stack"), Cause.STACK),
        (Ended(code=-signal.SIGABRT, error="memory allocation of 17179869184 bytes failed"), Cause.MEMORY),
        (Ended(code=1, error="MemoryError: Cannot allocate memory"), Cause.MEMORY),
    ],
)
def test_the_cause_is_read_from_how_the_process_ended(ended: Ended, cause: Cause) -> None:
    assert find_cause(ended, None) is cause


def test_a_fault_of_a_process_with_much_memory_is_for_its_memory() -> None:
    assert find_cause(Ended(code=-signal.SIGSEGV), None, is_large=True) is Cause.MEMORY


@pytest.mark.parametrize("decided", Cause)
def test_what_the_server_decided_is_the_cause_however_the_process_ended(decided: Cause) -> None:
    assert find_cause(Ended(code=-signal.SIGABRT, error="memory allocation failed"), decided) is decided


ERRORS: dict[Cause, tuple[type[MicromegasError], str | None]] = {
    Cause.MEMORY: (ResourcesExhausted, "memory"),
    Cause.STACK: (ResourcesExhausted, "stack"),
    Cause.CRASH: (ResourcesExhausted, "crash"),
    Cause.PLANNING: (ResourcesExhausted, "planning"),
    Cause.KILLED: (ResourcesExhausted, "memory"),
    Cause.DEADLINE: (DeadlineExceeded, "query_timeout"),
    Cause.STALLED: (DeadlineExceeded, "stalled_client"),
    Cause.CANCELLED: (QueryCancelled, None),
    Cause.DISCONNECTED: (QueryCancelled, None),
    Cause.LOST: (ServerUnavailable, None),
}


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_has_an_error_with_its_limit(cause: Cause) -> None:
    options = WorkerOptions(lake=None, denials_file=None, spill_directory="")

    error = build_error(cause, settings=PoolSettings(), options=options)

    assert (type(error), getattr(error, "limit", None)) == ERRORS[cause]


@pytest.mark.parametrize(
    ("total", "of_one", "shown"), [(4096, 2048, "2 GiB"), (64, 2048, "64 MiB"), (4096, None, "4 GiB")]
)
def test_a_statement_that_needs_too_much_memory_is_told_how_much_it_may_take(
    total: int, of_one: int | None, shown: str
) -> None:
    options = WorkerOptions(
        lake=None, denials_file=None, spill_directory="", data_limit_bytes=None if of_one is None else of_one * MIB
    )

    error = build_error(Cause.MEMORY, settings=PoolSettings(memory_bytes=total * MIB), options=options)

    assert f"at most {shown})" in error.what


def test_what_a_caller_cancels_or_the_server_loses_does_not_count_against_them() -> None:
    assert set(Cause) - CHARGED == {Cause.CANCELLED, Cause.DISCONNECTED, Cause.STALLED, Cause.LOST}
