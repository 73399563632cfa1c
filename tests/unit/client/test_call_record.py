"""What is kept of a call's metadata."""

from __future__ import annotations

import threading

from micromegas_jupyter.client.calls import CallRecord
from micromegas_jupyter.client.transport import CallRecorder


def test_query_id_and_details_are_kept() -> None:
    record = CallRecord()

    record.note({"x-micromegas-query-id": ["q-1"], "other": ["x"]})
    record.note({"micromegas-error-bin": [b"{}"]})

    assert (record.query_id, record.error_details) == ("q-1", b"{}")


def test_what_cannot_be_either_is_dropped() -> None:
    record = CallRecord()

    record.note({"x-micromegas-query-id": ["a b"], "micromegas-error-bin": [b"x" * 4097]})
    record.note({"x-micromegas-query-id": [b"q"], "micromegas-error-bin": ["text"]})
    record.note({"x-micromegas-query-id": [], "micromegas-error-bin": []})

    assert (record.query_id, record.error_details) == (None, None)


def test_a_call_writes_to_the_record_of_the_thread_that_makes_it() -> None:
    recorder, mine, other = CallRecorder(), CallRecord(), CallRecord()

    def call_elsewhere() -> None:
        with recorder.recording(other):
            recorder.start_call(None).received_headers({"x-micromegas-query-id": ["theirs"]})

    with recorder.recording(mine):
        thread = threading.Thread(target=call_elsewhere)
        thread.start()
        thread.join(60)
        started = recorder.start_call(None)
    started.received_headers({"x-micromegas-query-id": ["mine"]})
    recorder.start_call(None).received_headers({"x-micromegas-query-id": ["nobody's"]})

    assert (mine.query_id, other.query_id) == ("mine", "theirs")
    assert started.sending_headers() == {}
    assert started.call_completed(None) is None
