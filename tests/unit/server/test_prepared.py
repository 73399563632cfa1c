"""Prepared statements belong to their caller, end when unused, and are bounded."""

import re

import pytest

from micromegas_jupyter.core.system import SYSTEM_RANDOMNESS
from micromegas_jupyter.errors import ResourcesExhausted, UsageError
from micromegas_jupyter.server.tickets import PreparedStatements, Signer, pack_frames, unpack_frames
from tests.fakes.clock import FakeClock

ALICE = ("https://id.example", "alice")
KEY = bytes(range(32))
BOB = ("https://id.example", "bob")
ONE, TWO = (b"schema", b"one"), (b"schema", b"two")


def _store(
    clock: FakeClock, *, max_statements: int = 10, max_per_caller: int = 5, key: bytes = KEY
) -> PreparedStatements:
    return PreparedStatements(
        Signer(key),
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
        store.bind(handle, ONE, BOB)
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

    store.bind(handle, ONE, ALICE)
    store.bind(handle, TWO, ALICE)

    assert store.get(handle, ALICE).parameters == TWO


def test_the_handle_that_binding_gives_stands_for_the_statement_with_its_values(clock: FakeClock) -> None:
    store = _store(clock)
    first = store.add("SELECT ?", ALICE)

    one = store.bind(first, ONE, ALICE)
    two = store.bind(one, TWO, ALICE)

    assert store.get(one, ALICE).parameters == ONE
    assert store.get(two, ALICE).parameters == TWO


def test_a_handle_reads_as_its_statement(clock: FakeClock) -> None:
    handle = _store(clock).add("SELECT 'é' -- one", ALICE)

    assert re.fullmatch(r"SELECT 'é' -- one\n-- prepared [A-Za-z0-9_-]+", handle.decode())


def test_a_server_with_the_same_key_takes_a_handle_and_its_values(clock: FakeClock) -> None:
    here, there = _store(clock), _store(clock)
    handle = here.add("SELECT ?", ALICE)
    bound = here.bind(handle, ONE, ALICE)

    assert there.get(handle, ALICE).parameters == ()
    assert there.get(bound, ALICE).parameters == ONE
    assert there.get(bound, ALICE).sql == "SELECT ?"
    with pytest.raises(UsageError):
        there.get(bound, BOB)
    with pytest.raises(UsageError):
        _store(clock, key=bytes(32)).get(handle, ALICE)


def test_values_that_are_too_large_to_travel_stay_where_they_were_bound(clock: FakeClock) -> None:
    here, there = _store(clock), _store(clock)
    large = (bytes(100_000),)

    bound = here.bind(here.add("SELECT ?", ALICE), large, ALICE)

    assert len(bound) < 1000
    assert here.get(bound, ALICE).parameters == large
    with pytest.raises(UsageError, match="restarted"):
        there.get(bound, ALICE)


def test_another_server_takes_a_handle_for_a_while_only(clock: FakeClock) -> None:
    here, there = _store(clock), _store(clock)
    handle = here.add("SELECT 1", ALICE)
    clock.advance(599)
    here.get(handle, ALICE)
    clock.advance(2)

    assert here.get(handle, ALICE).sql == "SELECT 1"
    with pytest.raises(UsageError):
        there.get(handle, ALICE)


def test_statements_of_other_servers_count_among_those_of_their_caller(clock: FakeClock) -> None:
    here, there = _store(clock), _store(clock, max_per_caller=2)

    for number in range(5):
        there.get(here.add(f"SELECT {number}", ALICE), ALICE)

    assert len(there) == 2


def test_a_closed_statement_is_gone_by_all_its_handles(clock: FakeClock) -> None:
    store = _store(clock)
    handle = store.add("SELECT ?", ALICE)
    bound = store.bind(handle, ONE, ALICE)

    store.close(bound, ALICE)

    for found in (handle, bound):
        with pytest.raises(UsageError):
            store.get(found, ALICE)


@pytest.mark.parametrize("handle", [b"", b"SELECT 1", b"SELECT 1\n-- prepared ", b"\n-- prepared \xff", b"\xff" * 99])
def test_other_bytes_are_no_handle(clock: FakeClock, handle: bytes) -> None:
    store = _store(clock)

    store.close(handle, ALICE)
    with pytest.raises(UsageError, match="not known"):
        store.get(handle, ALICE)


@pytest.mark.parametrize("sql", ["SELECT 1", "SELECT 12", "SELECT 123"])
def test_no_other_spelling_of_a_handle_is_taken(clock: FakeClock, sql: str) -> None:
    store = _store(clock)
    handle = store.add(sql, ALICE)
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/="

    for last in alphabet:
        spelt = handle[:-1] + bytes([last])
        if spelt != handle:
            with pytest.raises(UsageError):
                store.get(spelt, ALICE)


def test_a_handle_with_other_sql_is_refused(clock: FakeClock) -> None:
    store = _store(clock)
    handle = store.add("SELECT 1", ALICE)

    with pytest.raises(UsageError):
        store.get(handle.replace(b"SELECT 1", b"SELECT 2"), ALICE)


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
    large = (bytes(40 * 1024 * 1024),)
    store.bind(store.add("SELECT ?", ALICE), large, ALICE)
    second = store.add("SELECT ?", ALICE)

    with pytest.raises(ResourcesExhausted):
        store.bind(second, large, ALICE)


def test_a_statement_does_not_show_its_parameters(clock: FakeClock) -> None:
    store = _store(clock)
    handle = store.add("SELECT 'secret'", ALICE)

    assert "secret" not in repr(store.get(handle, ALICE))


@pytest.mark.parametrize(
    "frames", [(), (b"",), (b"a", b"", b"bc"), (bytes(65_532),)], ids=["none", "empty", "some", "most"]
)
def test_packed_messages_come_back_as_they_were(frames: tuple[bytes, ...]) -> None:
    packed = pack_frames(frames)

    assert packed is not None
    assert unpack_frames(packed) == frames


def test_messages_that_are_too_large_to_travel_are_not_packed() -> None:
    assert pack_frames((bytes(65_533),)) is None
    assert pack_frames((bytes(40_000), bytes(30_000))) is None
