"""A lease is exclusive, is lost by replacement of its lock file, and works beside programs that only use `flock`."""

import os
from pathlib import Path

import pytest

from micromegas_jupyter.core import files
from micromegas_jupyter.core.files import LeaseBusy, LeaseFile, LeaseLost
from tests.fakes.clock import FakeClock


@pytest.fixture
def path(tmp_path):
    return tmp_path / "t.lock"


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture(autouse=True)
def _no_records(monkeypatch):
    """Holders look suspended: they write no further record."""
    monkeypatch.setattr(files, "start_thread", lambda *_, **__: None)


def look(file, clock, *, seconds, **options):
    """Try to acquire once a second, and return how many seconds that took and the lease or what was raised."""
    for second in range(seconds):
        try:
            return second, file.acquire(wait_seconds=0, **options)
        except LeaseBusy as busy:
            found = busy
        clock.advance(1)
    return seconds, found


def test_times_are_those_that_are_documented():
    assert (files.BROKEN_AFTER_SECONDS, files.UNRECORDED_BROKEN_AFTER_SECONDS) == (10, 40)


def test_a_lease_without_new_records_is_taken_over_after_ten_seconds_and_its_holder_finds_out(path, clock):
    held = LeaseFile(path).acquire(wait_seconds=0)

    second, successor = look(LeaseFile(path, clock=clock), clock, seconds=60)

    assert second == 10
    successor.check()
    with pytest.raises(LeaseLost):
        held.check()
    held.release()
    successor.check()
    successor.release()
    assert [entry.name for entry in path.parent.iterdir()] == ["t.lock"]


def test_a_lease_with_new_records_is_never_taken_over(path, clock):
    held, waiter = LeaseFile(path).acquire(wait_seconds=0), LeaseFile(path, clock=clock)

    for _ in range(20):
        second, _busy = look(waiter, clock, seconds=9)
        assert second == 9
        held._write()

    held.check()
    held.release()


def test_time_in_which_the_waiter_itself_was_suspended_does_not_count(path, clock):
    held, waiter = LeaseFile(path).acquire(wait_seconds=0), LeaseFile(path, clock=clock)

    for _ in range(5):
        look(waiter, clock, seconds=1)
        clock.advance(3600)

    held.check()
    held.release()


def test_leases_of_one_process_one_after_the_other_are_not_taken_for_one(path, clock):
    waiter = LeaseFile(path, clock=clock)

    for _ in range(20):
        held = LeaseFile(path).acquire(wait_seconds=0)
        look(waiter, clock, seconds=1)
        held.check()
        held.release()


def test_a_holder_that_continues_during_the_takeover_keeps_its_lease(path, clock, monkeypatch):
    held, waiter = LeaseFile(path).acquire(wait_seconds=0), LeaseFile(path, clock=clock)
    look(waiter, clock, seconds=9)
    rename = Path.replace

    def continue_before(source, target):
        monkeypatch.undo()
        held.enter_critical()  # from now on, it may send the refresh token
        return rename(source, target)

    monkeypatch.setattr(Path, "replace", continue_before)
    _, busy = look(waiter, clock, seconds=5)

    assert isinstance(busy, LeaseBusy)
    held.check()
    held.release()
    assert [entry.name for entry in path.parent.iterdir()] == ["t.lock"]


def test_the_critical_part_of_a_living_process_is_not_interrupted_unless_requested(path, clock):
    held = LeaseFile(path).acquire(wait_seconds=0)
    held.enter_critical()
    waiter = LeaseFile(path, clock=clock)

    assert look(waiter, clock, seconds=60)[1].suspended_process == os.getpid()
    _, successor = look(waiter, clock, seconds=1, interrupts_critical=True)

    successor.check()
    with pytest.raises(LeaseLost):
        held.enter_critical()
    successor.release()


def test_the_critical_part_ends_with_a_note_for_the_next_holder(path, clock):
    held = LeaseFile(path).acquire(wait_seconds=0)
    held.enter_critical()
    held.leave_critical(rotates=True)

    second, successor = look(LeaseFile(path, clock=clock), clock, seconds=60)

    assert (second, successor.notes) == (10, {"rotates": True})
    successor.release()
    assert LeaseFile(path).acquire(wait_seconds=0).notes == {"rotates": True}


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'["x",0,true,{}]', b"[null,0,true,{}]", b"\xff" * 999])
def test_a_lock_without_a_record_of_a_living_process_is_taken_over_after_forty_seconds(path, clock, content):
    held = LeaseFile(path).acquire(wait_seconds=0)
    path.write_bytes(content)

    second, successor = look(LeaseFile(path, clock=clock), clock, seconds=60)

    assert second == 40
    successor.release()
    held.release()


def test_a_lock_file_that_is_removed_by_hand_ends_the_lease(path):
    held = LeaseFile(path).acquire(wait_seconds=0)
    path.unlink()

    with pytest.raises(LeaseLost):
        held.check()
    LeaseFile(path).acquire(wait_seconds=0).check()
