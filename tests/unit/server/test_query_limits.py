"""A query ends at its limits of time, rows and bytes, and the error says which one it was."""

from __future__ import annotations

import asyncio

import pyarrow as pa
import pytest

from micromegas_jupyter.errors import DeadlineExceeded, ResourcesExhausted
from micromegas_jupyter.server.query_limits import QueryTime, ResultSize

THREE = pa.record_batch({"n": pa.array([1, 2, 3])})


def test_a_query_over_its_time_is_cancelled_and_told_so() -> None:
    ended: list[str] = []

    async def scenario() -> None:
        with QueryTime(0.01).of_one():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

    with pytest.raises(DeadlineExceeded, match=r"longer than the 0\.01 s"):
        asyncio.run(scenario())

    assert ended == ["cancelled"]


def test_without_a_limit_of_time_nothing_ends_it() -> None:
    async def scenario() -> None:
        with QueryTime(None).of_one():
            await asyncio.sleep(0)

    asyncio.run(scenario())


def test_a_timeout_of_somebody_else_passes_as_it_is() -> None:
    async def scenario() -> None:
        with QueryTime(60).of_one():
            raise TimeoutError("the store did not answer")

    with pytest.raises(TimeoutError, match="the store"):
        asyncio.run(scenario())


def test_rows_up_to_the_limit_are_sent_and_the_next_is_an_error() -> None:
    size = ResultSize(max_rows=4, max_bytes=None)

    assert size.fit(THREE).num_rows == 3
    size.count_rows(3, of=3)
    assert size.fit(THREE).to_pydict() == {"n": [1]}
    with pytest.raises(ResourcesExhausted, match=r"more rows than the 4 .* 4 rows came") as caught:
        size.count_rows(1, of=3)

    assert "LIMIT" in caught.value.remedy
    assert "time range" in caught.value.remedy


def test_a_result_of_exactly_the_limit_is_complete() -> None:
    size = ResultSize(max_rows=3, max_bytes=10)

    size.check_message(10)
    size.count_rows(size.fit(THREE).num_rows, of=3)

    assert (size.rows, size.bytes) == (3, 10)


def test_a_message_beyond_the_limit_is_not_sent() -> None:
    size = ResultSize(max_rows=None, max_bytes=1 << 20)
    size.check_message(1 << 19)
    size.count_rows(3, of=3)

    with pytest.raises(ResourcesExhausted, match=r"larger than the 1 MiB .* at least 3 rows came"):
        size.check_message((1 << 19) + 1)

    assert size.bytes == 1 << 19


def test_a_first_batch_beyond_the_limit_is_not_counted_as_no_rows() -> None:
    size = ResultSize(max_rows=None, max_bytes=1 << 20)

    with pytest.raises(ResourcesExhausted, match=r"for one query; it ended among its first rows\."):
        size.check_message((1 << 20) + 1)


def test_without_limits_all_is_sent() -> None:
    size = ResultSize(max_rows=None, max_bytes=None)

    size.check_message(1 << 40)
    assert size.fit(THREE) is THREE
