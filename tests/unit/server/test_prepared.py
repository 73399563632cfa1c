"""Prepared statements belong to their caller, end when unused, and are bounded."""

import pyarrow as pa
import pytest

from micromegas_jupyter.errors import ResourcesExhausted, UsageError
from micromegas_jupyter.seams import SYSTEM_RANDOMNESS
from micromegas_jupyter.server.prepared import PreparedStatements
from tests.fakes.clock import FakeClock

ALICE = ("https://id.example", "alice")
BOB = ("https://id.example", "bob")


def _store(clock: FakeClock, *, max_statements: int = 10, max_per_caller: int = 5) -> PreparedStatements:
    return PreparedStatements(
        max_statements=max_statements,
        max_per_caller=max_per_caller,
        idle_seconds=600,
        clock=clock,
        randomness=SYSTEM_RANDOMNESS,
    )


def test_a_statement_is_found_by_its_handle(clock: FakeClock) -> None:
    store = _store(clock)

    handle = store.add("SELECT 1", ALICE)

    assert store.get(handle, ALICE).sql == "SELECT 1"


def test_another_callers_handle_counts_as_unknown(clock: FakeClock) -> None:
    store = _store(clock)
    handle = store.add("SELECT 1", ALICE)

    with pytest.raises(UsageError):
        store.get(handle, BOB)
    with pytest.raises(UsageError):
        store.bind(handle, None, BOB)
    store.close(handle, BOB)

    assert store.get(handle, ALICE).sql == "SELECT 1"


def test_the_same_name_at_another_issuer_is_another_caller(clock: FakeClock) -> None:
    store = _store(clock)
    handle = store.add("SELECT 1", ALICE)

    with pytest.raises(UsageError):
        store.get(handle, ("https://other.example", "alice"))


def test_a_closed_statement_is_gone_and_closing_again_is_fine(clock: FakeClock) -> None:
    store = _store(clock)
    handle = store.add("SELECT 1", ALICE)

    store.close(handle, ALICE)
    store.close(handle, ALICE)

    with pytest.raises(UsageError):
        store.get(handle, ALICE)


def test_bound_parameters_replace_earlier_ones(clock: FakeClock) -> None:
    store = _store(clock)
    handle = store.add("SELECT ?", ALICE)

    store.bind(handle, pa.record_batch({"0": [1]}), ALICE)
    store.bind(handle, pa.record_batch({"0": [2]}), ALICE)

    assert store.get(handle, ALICE).parameters == pa.record_batch({"0": [2]})


def test_an_unused_statement_ends_and_a_used_one_does_not(clock: FakeClock) -> None:
    store = _store(clock)
    unused, used = store.add("SELECT 1", ALICE), store.add("SELECT 2", ALICE)

    clock.advance(400)
    store.get(used, ALICE)
    clock.advance(400)

    assert store.get(used, ALICE).sql == "SELECT 2"
    with pytest.raises(UsageError):
        store.get(unused, ALICE)


def test_a_callers_new_statement_replaces_its_longest_unused(clock: FakeClock) -> None:
    store = _store(clock, max_per_caller=2)
    first, second = store.add("SELECT 1", ALICE), store.add("SELECT 2", ALICE)
    store.get(first, ALICE)

    store.add("SELECT 3", ALICE)

    assert len(store) == 2
    assert store.get(first, ALICE).sql == "SELECT 1"
    with pytest.raises(UsageError):
        store.get(second, ALICE)


def test_one_caller_never_pushes_out_anothers_statement(clock: FakeClock) -> None:
    store = _store(clock, max_statements=1)
    handle = store.add("SELECT 1", ALICE)

    with pytest.raises(ResourcesExhausted):
        store.add("SELECT 2", BOB)

    assert store.get(handle, ALICE).sql == "SELECT 1"


def test_bound_parameters_are_bounded_in_bytes(clock: FakeClock) -> None:
    store = _store(clock)
    large = pa.record_batch({"0": pa.array([bytes(40 * 1024 * 1024)])})
    store.bind(store.add("SELECT ?", ALICE), large, ALICE)
    second = store.add("SELECT ?", ALICE)

    with pytest.raises(ResourcesExhausted):
        store.bind(second, large, ALICE)


def test_a_statement_does_not_show_its_parameters(clock: FakeClock) -> None:
    store = _store(clock)
    handle = store.add("SELECT 'secret'", ALICE)

    assert "secret" not in repr(store.get(handle, ALICE))
