"""The lines that say how far a query is."""

from __future__ import annotations

from datetime import timedelta

import pytest

from micromegas_jupyter.notebook.login.connections import Connection
from micromegas_jupyter.notebook.results.progress import Ending, Progress
from tests.fakes.clock import FakeClock
from tests.fakes.notebook_people import FakePersonalProvider, FakeServiceProvider
from tests.fakes.notebook_world import ROWS, FakeReader, FakeWorld


def opened(clock: FakeClock, *, left: timedelta | None = None) -> Progress:
    progress = Progress(clock)
    reader = FakeReader(ROWS.to_batches(), clock, 3.25, "7f3a91c2d4e5")
    progress.note_opened(reader, token_ends_at=None if left is None else clock.now() + left)
    next(reader)
    progress.note_batch()
    return progress


def test_the_running_line_tells_rows_bytes_query_and_the_time_left_on_the_token() -> None:
    progress = opened(FakeClock(), left=timedelta(minutes=58, seconds=59))

    assert progress.running_line() == (
        "⏳ 3.2 s · 3 rows · 1.0 MB · query 7f3a91c2 · token 58 min · interrupt to cancel"
    )


def test_a_token_that_has_ended_while_the_query_goes_on_is_said_to_have() -> None:
    assert "· token expired ·" in opened(FakeClock(), left=timedelta(seconds=1)).running_line()


def test_nothing_is_said_of_a_token_that_is_not_known_to_end() -> None:
    assert "token" not in opened(FakeClock()).running_line()


def test_before_the_server_answers_there_is_only_time_to_tell() -> None:
    assert Progress(FakeClock()).running_line() == "⏳ 0.00 s · interrupt to cancel"


@pytest.mark.parametrize(
    ("ending", "line"),
    [
        (Ending.CANCELLED, "✗ cancelled after 3.2 s, 3 rows received, stopped on the server · query 7f3a91c2"),
        (Ending.STOPPED, "■ stopped after 3.2 s, 3 rows received, stopped on the server · query 7f3a91c2"),
        (Ending.FAILED, "✗ failed after 3.2 s, 3 rows received · query 7f3a91c2"),
    ],
)
def test_each_early_end_has_its_line(ending: Ending, line: str) -> None:
    assert opened(FakeClock()).ended_line(ending) == line


def test_a_persons_token_has_an_end_and_a_service_account_s_is_not_told() -> None:
    client = FakeWorld().dependencies().open_client(None, None)

    assert Connection(provider=FakePersonalProvider(), client=client).token_ends_at() is not None
    assert Connection(provider=FakeServiceProvider(), client=client).token_ends_at() is None
