"""Batches leave as `FlightData` of bounded size and read back unchanged; hostile parameters are refused."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from micromegas_jupyter.errors import ResourcesExhausted, UnsupportedRequest, UsageError
from micromegas_jupyter.flightsql import framing
from micromegas_jupyter.flightsql.commands import messages
from micromegas_jupyter.flightsql.framing import (
    ParameterLimits,
    clean_views,
    decode_parameters,
    row_sizes,
    view_lengths,
)
from tests.integration.flight_harness import decode_rows

LIMITS = ParameterLimits()


def _encode(schema, batches, **options):
    encoder = framing.FlightDataEncoder(schema, **options)
    return [encoder.encode_schema()] + [frame for batch in batches for frame in encoder.encode_batch(batch)]


def test_compressed_batches_read_back_unchanged_and_are_smaller():
    batch = pa.record_batch({"text": ["the same"] * 10_000, "word": pa.array(["a", "b"] * 5000).dictionary_encode()})

    frames = _encode(batch.schema, [batch, batch], compression="lz4")

    assert decode_rows(frames) == pa.Table.from_batches([batch, batch])
    assert sum(map(len, frames)) < sum(map(len, _encode(batch.schema, [batch, batch]))) / 2


@pytest.mark.parametrize("is_dictionary", [False, True], ids=["row", "dictionary"])
def test_what_cannot_be_cut_and_is_larger_than_any_message_is_refused(monkeypatch, is_dictionary):
    monkeypatch.setattr(framing, "MAX_MESSAGE_BYTES", 3 * 1024 * 1024)
    values = pa.array(["x" * 1024 * 1024 * 4, "y"])
    batch = pa.record_batch({"text": values.dictionary_encode() if is_dictionary else values})

    with pytest.raises(ResourcesExhausted, match="takes 4 MiB, more than the 3 MiB"):
        _encode(batch.schema, [batch])


def test_a_dictionary_is_sent_once_while_it_does_not_change():
    first = pa.record_batch({"word": pa.array(["a", "b", "a"]).dictionary_encode()})
    other = pa.record_batch({"word": pa.array(["c", "c"]).dictionary_encode()})

    frames = _encode(first.schema, [first, first.slice(1), other])

    assert len(frames) == 1 + 2 + 1 + 2
    assert decode_rows(frames)["word"].to_pylist() == ["a", "b", "a", "b", "a", "c", "c"]


def test_parameters_read_back_as_one_batch():
    batch = pa.record_batch({"0": [1, 2], "1": pa.array(["a", None]).dictionary_encode()})

    found = decode_parameters(_encode(batch.schema, [batch, batch.slice(0, 0), batch]), limits=LIMITS)

    assert found.to_pylist() == batch.to_pylist() * 2
    assert decode_parameters(_encode(pa.schema({"n": pa.int64()}), []), limits=LIMITS) is None


@pytest.mark.parametrize("limits", [{"max_rows": 1}, {"max_columns": 1}, {"max_bytes": 100}, {"max_messages": 1}])
def test_parameters_over_a_limit_are_refused(limits):
    batch = pa.record_batch({"0": [1, 2], "1": [3, 4]})

    with pytest.raises(ResourcesExhausted):
        decode_parameters(_encode(batch.schema, [batch]), limits=ParameterLimits(**limits))


def _compressed(batch):
    return _encode(batch.schema, [batch], compression="zstd")


def _damaged(column, damage):
    batch = pa.record_batch({"c": column})
    schema, rows = _encode(batch.schema, [batch])
    data = messages.FlightData.FromString(rows)
    data.data_body = damage(data.data_body)
    return [schema, data.SerializeToString()]


FAR, TWO = (2_000_000).to_bytes(4, "little"), (2).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("frames", "kind"),
    [
        (_compressed(pa.record_batch({"n": [0] * 1000})), UnsupportedRequest),
        (_compressed(pa.record_batch({"w": pa.array(["a"] * 9).dictionary_encode()}))[:2], UnsupportedRequest),
        (_encode(pa.schema({"ids": pa.list_(pa.fixed_shape_tensor(pa.int8(), [2]))}), []), UnsupportedRequest),
        (_encode(pa.schema({"ARROW:extension:name": pa.int8()}), []), UsageError),
        (_damaged([1, 2], lambda body: body[:-8]), UsageError),
        (_damaged(["aa", "bb"], lambda body: body.replace(TWO, FAR, 1)), UsageError),
        (_damaged(["marker"], lambda body: body.replace(b"marker", b"\xff\xfe\xff\xfe\xff\xfe")), UsageError),
        (_encode(pa.schema({"n": pa.int64()}), [pa.record_batch({"n": [1, 2]})])[1:], UsageError),
    ],
    ids=[
        "compressed",
        "compressed dictionary",
        "extension type",
        "extension key",
        "body",
        "offsets",
        "not UTF-8",
        "no schema",
    ],
)
def test_hostile_parameters_are_refused(frames, kind):
    with pytest.raises(kind):
        decode_parameters(frames, limits=LIMITS)


_TEXTS = ["a", None, "long enough for a buffer"]


@pytest.mark.parametrize(
    ("column", "sizes"),
    [
        (pa.array([1, None]), [8, 8]),
        (pa.nulls(2), [1, 1]),
        (pa.array(["abc", None]), [3, 1]),
        (pa.array(["abc", "a text that is longer"], pa.string_view()), [3, 21]),
        (pa.array(["abc", "d", None]).dictionary_encode(), [3, 1, 3]),
        (pa.DictionaryArray.from_arrays(pa.array([None], pa.int8()), pa.array([], pa.utf8())), [1]),
        (pa.array([[1, 2], None, []]), [16, 1, 1]),
        (pa.array([["abc", "d"], None]), [4, 1]),
        (pa.array([{"a": "abc", "b": 1}, None]), [11, 9]),
        (pa.array([[("key", 1)], None], pa.map_(pa.utf8(), pa.int64())), [11, 1]),
        (pa.array([["abc", "d"], ["e", "f"]], pa.list_(pa.utf8(), 2)), [4, 2]),
        (pc.run_end_encode(pa.array(["abc", "abc", None])), [3, 3, 1]),
        (pa.array([["abc", "d"], None, ["e"]], pa.list_view(pa.utf8())), [4, 1, 1]),
        (
            pa.ListViewArray.from_arrays(pa.array([1, 0], pa.int32()), pa.array([1, 2], pa.int32()), pa.array([7, 8])),
            [8, 16],
        ),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_each_kind_is_measured(column, sizes):
    batch = pa.record_batch({"c": column})

    assert row_sizes(batch).tolist() == sizes
    assert row_sizes(batch.slice(1)).tolist() == sizes[1:]


def test_rows_are_cut_by_their_size_and_a_larger_row_is_refused():
    batch = pa.record_batch({"c": ["x" * 4, "x" * 4, "x" * 9, "x"]})

    parts = list(framing.split_rows(batch, max_bytes=10))

    assert [(part.num_rows, size) for part, size in parts] == [(2, 8), (2, 10)]
    assert pa.Table.from_batches([part for part, _ in parts]) == pa.Table.from_batches([batch])
    with pytest.raises(ResourcesExhausted):
        list(framing.split_rows(batch, max_bytes=8))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([{}], pa.struct([])),
        pa.Array.from_buffers(pa.list_(pa.int8(), 0), 5, [None], children=[pa.array([], pa.int8())]),
        pa.array([[[1]]], pa.list_(pa.list_view(pa.int8()))),
        pa.StructArray.from_arrays([pc.run_end_encode(pa.array([1]))], ["a"]),
    ],
    ids=["empty struct", "lists of nothing", "list view inside", "run-end encoded inside"],
)
def test_what_cannot_be_measured_is_refused(column):
    with pytest.raises(UnsupportedRequest):
        row_sizes(pa.record_batch({"c": column}))


@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary_view()])
def test_values_stay(kind):
    array = pa.array(_TEXTS, pa.string_view()).cast(kind)

    cleaned = clean_views(array)

    cleaned.validate(full=True)
    assert framing.is_view(kind)
    assert cleaned.equals(array)
    assert clean_views(array.slice(1)).equals(array.slice(1))
    assert view_lengths(array).tolist() == [1, 0, 24]


def test_a_null_value_that_points_far_away_is_emptied():
    validity, views, text = pa.array(_TEXTS, pa.string_view()).buffers()
    trap = views.to_pybytes()[:16] + (2**31 - 1).to_bytes(4, "little") + b"\xff" * 12 + views.to_pybytes()[32:]
    array = pa.Array.from_buffers(pa.string_view(), 3, [validity, pa.py_buffer(trap), text])

    cleaned = clean_views(array)

    assert view_lengths(array).tolist() == [1, 2**31 - 1, 24]
    assert view_lengths(cleaned).tolist() == [1, 0, 24]
    assert cleaned.cast(pa.string()).to_pylist() == _TEXTS
