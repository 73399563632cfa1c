"""A call that stalls ends, calls over the limit wait for their turn, a server that stops stores nothing by halves."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import grpc
import pyarrow as pa
import pytest

from micromegas_jupyter.errors import DeadlineExceeded, ResourcesExhausted, ServerUnavailable
from micromegas_jupyter.flightsql.commands import ERROR_DETAILS_KEY, decode_error
from micromegas_jupyter.server.settings import IngestSettings
from tests.integration.flight_harness import ALICE, FLIGHT
from tests.integration.ingest.lake_server import create_command, ingest_frames, lake_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from micromegas_jupyter.errors import MicromegasError


pytestmark = pytest.mark.integration

_WAIT_SECONDS = 60.0
_ROWS = pa.table({"id": [1]})


class _Stalled:
    """A call that sends some messages and then nothing until it is told to end."""

    def __init__(self, channel: grpc.Channel, table: str) -> None:
        self._frames = ingest_frames(create_command(table), _ROWS)
        self._may_end = threading.Event()
        self._has_sent = threading.Event()
        put = channel.stream_stream(FLIGHT + "DoPut")
        self._call = put(self._messages(), metadata=ALICE, timeout=_WAIT_SECONDS)
        self._call.add_callback(self._has_sent.set)  # the server may end it before all is sent
        assert self._has_sent.wait(_WAIT_SECONDS)

    def _messages(self) -> Iterator[bytes]:
        yield from self._frames
        self._has_sent.set()
        self._may_end.wait(_WAIT_SECONDS)

    def finish(self) -> MicromegasError | None:
        """End the call; return its error, None when its rows are stored."""
        self._may_end.set()
        return self.wait()

    def wait(self) -> MicromegasError | None:
        with suppress(grpc.RpcError):  # the status is read below
            list(self._call)
        code = self._call.code()
        details = dict(self._call.trailing_metadata() or ()).get(ERROR_DETAILS_KEY)
        self._may_end.set()
        if code is grpc.StatusCode.UNAVAILABLE and details is None:
            return ServerUnavailable("The connection is gone.")
        return None if code is grpc.StatusCode.OK else decode_error(details)


def test_a_call_that_sends_nothing_for_too_long_ends(tmp_path: Path) -> None:
    with lake_server(tmp_path, ingest=IngestSettings(idle_seconds=0.3)) as server:
        error = _Stalled(server.flight.channel, "stalled").wait()

        assert isinstance(error, DeadlineExceeded)
        assert error.what == "Nothing arrived for 0.3 seconds; no row is stored."
        assert server.files() == []


def test_a_call_ends_after_its_time_in_all(tmp_path: Path) -> None:
    with lake_server(tmp_path, ingest=IngestSettings(max_seconds=0.3)) as server:
        error = _Stalled(server.flight.channel, "slow").wait()

        assert isinstance(error, DeadlineExceeded)
        assert server.files() == []


def test_calls_over_the_limit_of_a_caller_wait_and_those_of_others_do_not(tmp_path: Path) -> None:
    settings = IngestSettings(max_per_caller=1, admission_wait_seconds=1.0)
    with lake_server(tmp_path, ingest=settings) as server:
        flight = server.flight
        first = _Stalled(flight.channel, "first")
        flight.wait_until_running()
        own = flight.call(FLIGHT + "DoPut", *ingest_frames(create_command("own"), _ROWS))
        others = flight.call(
            FLIGHT + "DoPut",
            *ingest_frames(create_command("others"), _ROWS),
            metadata=(("authorization", "Bearer collector"),),
        )
        stored = first.finish()
        later = flight.call(FLIGHT + "DoPut", *ingest_frames(create_command("later"), _ROWS))

    assert type(own.error) is ResourcesExhausted
    assert stored is None
    assert [answer.code for answer in (others, later)] == [grpc.StatusCode.OK] * 2
