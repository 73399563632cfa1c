"""Whatever bytes arrive, reading them gives a value or one of the package's own errors."""

from contextlib import suppress

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.flightsql.commands import (
    PreparedQuery,
    StatementQuery,
    messages,
    parse_descriptor,
    parse_ticket,
    prepared_ticket,
    statement_ticket,
)
from micromegas_jupyter.flightsql.framing import (
    FlightDataEncoder,
    ParameterLimits,
    decode_parameters,
    read_header,
    split_batch,
)

LIMITS = ParameterLimits()
SAMPLE = pa.record_batch(
    {
        "0": pa.array([1, 2, None], pa.int64()),
        "1": pa.array(["a", None, "üü"]),
        "2": pa.array(["x", "y", "x"]).dictionary_encode(),
        "3": pa.array([[1.5], [], None], pa.list_(pa.float64())),
    }
)


def _sample_frames():
    encoder = FlightDataEncoder(SAMPLE.schema)
    return [encoder.encode_schema(), *encoder.encode_batch(SAMPLE)]


FRAMES = _sample_frames()


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_statement_survives_its_ticket(sql):
    assert parse_ticket(statement_ticket(sql)) == StatementQuery(sql=sql)


@given(st.binary())
def test_any_handle_survives_its_ticket(handle):
    assert parse_ticket(prepared_ticket(handle)) == PreparedQuery(handle=handle)


@given(st.binary(max_size=200))
def test_noise_is_never_more_than_a_refused_ticket(data):
    with suppress(MicromegasError):
        parse_ticket(data)
    with suppress(MicromegasError):
        parse_descriptor(messages.FlightDescriptor(type=messages.FlightDescriptor.CMD, cmd=data))
    with suppress(MicromegasError):
        read_header(data)
    with suppress(MicromegasError):
        decode_parameters([data], limits=LIMITS)


@given(st.data())
def test_damaged_parameters_are_read_or_refused_but_never_break_the_process(data):
    frames = [bytearray(frame) for frame in FRAMES]
    for _ in range(data.draw(st.integers(1, 4))):
        frame = data.draw(st.sampled_from(frames))
        position = data.draw(st.integers(0, len(frame) - 1))
        frame[position] = data.draw(st.integers(0, 255))

    with suppress(MicromegasError):
        found = decode_parameters([bytes(frame) for frame in frames], limits=LIMITS)
        if found is not None:
            found.validate(full=True)
            found.to_pylist()


@given(st.lists(st.text(max_size=300), max_size=60), st.integers(1, 5000))
def test_a_split_batch_is_the_batch_again(texts, max_bytes):
    batch = pa.record_batch({"text": pa.array(texts, pa.string())})

    parts = list(split_batch(batch, max_bytes=max_bytes))

    assert pa.Table.from_batches(parts) == pa.Table.from_batches([batch])
    assert all(part.num_rows <= 1 or pa.ipc.get_record_batch_size(part) <= max_bytes for part in parts)
