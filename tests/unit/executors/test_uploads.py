"""Rows come out of messages as they were sent; what would take too much, or is not what it says, is refused first."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa
import pytest

from micromegas_jupyter.core.protocols import WriteMode, WriteRequest
from micromegas_jupyter.errors import MicromegasError, ResourcesExhausted, UnsupportedRequest, UsageError
from micromegas_jupyter.executors.protocol import Upload
from micromegas_jupyter.executors.settings import IngestSettings
from micromegas_jupyter.executors.worker import UploadStream
from micromegas_jupyter.flightsql.commands import messages
from tests.fakes.fixed_tables import encode_stream

MIB = 1024 * 1024
SETTINGS = IngestSettings()
REQUEST = WriteRequest(table="t", mode=WriteMode.APPEND)


@dataclass
class FakeSink:
    """A table and a write into it, in memory."""

    requests: list[WriteRequest] = field(default_factory=list)
    rows: int = 0
    is_abandoned: bool = False

    def open_write(self, request, schema):
        self.requests.append(request)
        return self

    def write(self, batch):
        self.rows += batch.num_rows

    def commit(self):
        return self.rows

    def abandon(self):
        self.is_abandoned = True


def _open(sink, settings=SETTINGS, *, promised=None):
    return UploadStream(sink, Upload(request=REQUEST, limits=settings, row_count=promised))


def _take_all(frames, settings=SETTINGS, *, promised=None):
    sink = FakeSink()
    stream = _open(sink, settings, promised=promised)
    for frame in frames:
        stream.take(frame)
    stream.commit()
    return sink


def _peak_growth(frames):
    """What Arrow takes at most while the frames are refused, beyond what was there before."""
    pool = pa.default_memory_pool()
    before = pool.max_memory()
    with pytest.raises(MicromegasError):
        _take_all(frames)
    return pool.max_memory() - before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (IngestSettings(max_rows=3), "more than 3 rows"),
        (IngestSettings(max_batch_rows=3), "more than 3 rows"),
        (IngestSettings(max_columns=1), "more than 1 columns"),
        (IngestSettings(max_row_bytes=10), "A row takes more than 10 bytes"),
        (IngestSettings(max_bytes=100), "take more than 100 bytes"),
        (IngestSettings(max_dictionary_bytes=8), "dictionaries take more than 8 bytes"),
    ],
)
def test_rows_over_a_limit_are_refused_with_the_limit(settings, words):
    rows = pa.table({"text": ["x" * 30] * 4, "word": pa.array(["a", "b"] * 2).dictionary_encode()})

    with pytest.raises(ResourcesExhausted, match=words):
        _take_all(encode_stream(rows), settings)


def _dictionary_bomb():
    words = pa.DictionaryArray.from_arrays(pa.nulls(MIB, pa.int8()).fill_null(0), pa.array(["x" * MIB]))
    return encode_stream(pa.record_batch({"w": words}))


def _view_bomb():
    _validity, view, text = pa.array(["x" * MIB], pa.string_view()).buffers()
    views = pa.Array.from_buffers(pa.string_view(), MIB, [None, pa.py_buffer(view.to_pybytes() * MIB), text])
    return encode_stream(pa.record_batch({"w": views}))


def _row_bomb():
    words = pa.DictionaryArray.from_arrays(pa.nulls(MIB, pa.int8()).fill_null(0), pa.array(["x" * MIB]))
    return encode_stream(pa.record_batch({"w": pa.ListArray.from_arrays([0, MIB], words)}))


def _null_lists():
    return encode_stream(pa.record_batch({"n": pa.ListArray.from_arrays([0, 2**31 - 1], pa.nulls(2**31 - 1))}))


def _empty_structs():
    empty = pa.StructArray.from_buffers(pa.struct([]), 2**31 - 1, [None])
    return encode_stream(pa.record_batch({"n": pa.ListArray.from_arrays([0, 2**31 - 1], empty)}))


def _compression_bomb():
    return encode_stream(pa.record_batch({"n": pa.nulls(32 * MIB, pa.int8()).fill_null(0)}), compression="zstd")


def _growing_dictionaries():
    schema, dictionary, rows = encode_stream(pa.record_batch({"w": pa.array(["x" * MIB]).dictionary_encode()}))
    return [schema, *[dictionary] * 64, rows]


@pytest.mark.parametrize(
    "make",
    [
        _dictionary_bomb,
        _view_bomb,
        _row_bomb,
        _null_lists,
        _empty_structs,
        _compression_bomb,
        _growing_dictionaries,
        lambda: encode_stream(pa.record_batch({"n": pa.Array.from_buffers(pa.null(), 2**31 - 1, [None])})),
    ],
    ids=["dictionary", "views", "one row", "null lists", "empty structs", "compression", "dictionaries", "nulls"],
)
def test_little_that_stands_for_much_is_refused_before_it_is_unpacked(make):
    frames = make()

    assert _peak_growth(frames) < 64 * MIB


@pytest.mark.parametrize("announced", [2**62, -2])
def test_a_false_size_of_compressed_data_is_not_believed(announced):
    schema, rows = encode_stream(pa.record_batch({"n": [0] * 1000}), compression="zstd")
    data = messages.FlightData.FromString(rows)
    data.data_body = announced.to_bytes(8, "little", signed=True) + data.data_body[8:]

    assert _peak_growth([schema, data.SerializeToString()]) < MIB


def test_a_compressed_buffer_outside_of_its_body_is_refused():
    schema, rows = encode_stream(pa.record_batch({"n": [0] * 1000}), compression="lz4")
    data = messages.FlightData.FromString(rows)
    header = bytearray(data.data_header)
    position = header.index(len(data.data_body).to_bytes(8, "little")[:2])  # the last length that the header tells
    header[position : position + 2] = b"\xff\x7f"
    data.data_header = bytes(header)

    with pytest.raises(UsageError):
        _take_all([schema, data.SerializeToString()])


def _nested(depth):
    kind = pa.int8()
    for _ in range(depth):
        kind = pa.list_(kind)
    return kind


@pytest.mark.parametrize(
    ("schema", "error"),
    [
        (pa.schema({"n": _nested(9)}), ResourcesExhausted),
        (pa.schema([(f"c{index}", pa.int8()) for index in range(513)]), ResourcesExhausted),
        (pa.schema({"n": pa.struct([(f"c{index}", pa.int8()) for index in range(2048)])}), ResourcesExhausted),
        (pa.schema({"n" * 2 * MIB: pa.int8()}), ResourcesExhausted),
        (pa.schema({"n": pa.uuid()}), UnsupportedRequest),
        (pa.schema({"n": pa.list_(pa.json_())}), UnsupportedRequest),
        (pa.schema([("n", pa.int8()), ("n", pa.int8())]), UsageError),
        (pa.schema({"n\n": pa.int8()}), UsageError),
        (pa.schema([]), UsageError),
    ],
    ids=["deep", "wide", "wide inside", "long", "uuid", "json", "doubled", "line feed", "nothing"],
)
def test_a_schema_that_is_not_accepted_is_refused_before_any_row(schema, error):
    sink = FakeSink()
    stream = _open(sink)
    (opening,) = encode_stream(schema=schema)

    with pytest.raises(error):
        stream.take(opening)

    assert sink.requests == []


@pytest.mark.parametrize(
    "schema",
    [
        pa.schema({"marker": pa.int8()}),
        pa.schema({"n": pa.list_(pa.struct([("marker", pa.int8())]))}),
        pa.schema({"n": pa.timestamp("s", "marker")}),
    ],
    ids=["column", "field", "time zone"],
)
def test_a_name_that_is_not_utf8_is_refused(schema):
    (opening,) = encode_stream(schema=schema)

    with pytest.raises(UsageError):
        _take_all([opening.replace(b"marker", b"\xff\xfe\xff\xfe\xff\xfe")])


def test_rows_that_do_not_all_come_in_order_after_a_schema_are_not_committed():
    schema, rows = encode_stream(pa.record_batch({"n": [1]}))
    sink = FakeSink()
    stream = _open(sink, promised=2)
    stream.take(schema)
    stream.take(rows)

    with pytest.raises(UsageError, match="1 of 2 rows have arrived"):
        stream.commit()
    stream.abandon()
    assert sink.is_abandoned
    for frames in ([rows], [schema, schema], [schema, rows, schema], [messages.FlightData().SerializeToString()]):
        with pytest.raises(UsageError):
            _take_all(frames)
