"""Rows come out of messages as they were sent; what would take too much, or is not what it says, is refused first."""

import functools
import struct
from unittest.mock import MagicMock

import pyarrow as pa
import pytest

from micromegas_jupyter.core.protocols import WriteMode, WriteRequest
from micromegas_jupyter.errors import MicromegasError, ResourcesExhausted, UnsupportedRequest, UsageError
from micromegas_jupyter.executors.ingest_worker import UploadStream
from micromegas_jupyter.executors.protocol import Upload
from micromegas_jupyter.executors.settings import IngestSettings
from micromegas_jupyter.flightsql.commands import messages
from tests.fakes.fixed_tables import as_frames, encode_stream

MIB = 1024 * 1024
SETTINGS = IngestSettings()
REQUEST = WriteRequest(table="t", mode=WriteMode.APPEND)


def _open(sink, settings=SETTINGS):
    return UploadStream(sink, Upload(request=REQUEST, limits=settings, row_count=None))


def _take_all(frames, settings=SETTINGS):
    stream = _open(MagicMock(), settings)
    for frame in frames:
        stream.take(frame)
    stream.commit()


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


def _large_words():
    return pa.DictionaryArray.from_arrays(pa.nulls(MIB, pa.int8()).fill_null(0), pa.array(["x" * MIB]))


def _view_bomb():
    _validity, view, text = pa.array(["x" * MIB], pa.string_view()).buffers()
    return pa.Array.from_buffers(pa.string_view(), MIB, [None, pa.py_buffer(view.to_pybytes() * MIB), text])


def _long_list(values):
    return pa.ListArray.from_arrays([0, len(values)], values)


def _sent(column, **options):
    return encode_stream(pa.record_batch({"n": column}), **options)


def _growing_dictionaries():
    schema, dictionary, rows = _sent(pa.array(["x" * MIB]).dictionary_encode())
    return [schema, *[dictionary] * 64, rows]


def _formerly_compressed():
    """Rows whose message says only as Arrow 0.17 said it that they are compressed."""
    content = bytes(128 * MIB)
    packed = struct.pack("<q", len(content)) + pa.compress(content, "zstd", asbytes=True)
    rows = pa.record_batch({"n": pa.Array.from_buffers(pa.int8(), len(packed), [None, pa.py_buffer(packed)])})
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(metadata_version=pa.ipc.MetadataVersion.V4)
    with pa.ipc.new_stream(sink, rows.schema, options=options) as writer:
        writer.write_batch(rows, custom_metadata={"ARROW:experimental_compression": "zstd"})
    return as_frames(sink.getvalue())


def _padded(frame, size):
    data = messages.FlightData.FromString(frame)
    data.data_header += bytes(size)
    return data.SerializeToString()


def _dictionaries_of_metadata(size):
    schema, dictionary, _ = _sent(pa.array(["x"]).dictionary_encode())
    return [schema, *[_padded(dictionary, size)] * (128 * MIB // size)]


def _nothings(length):
    return pa.Array.from_buffers(pa.binary(0), length, [None, pa.py_buffer(b"")])


def _bits(length):
    return pa.Array.from_buffers(pa.bool_(), length, [None, pa.py_buffer(bytes(length // 8))])


def _map_of(values):
    fields = [pa.field("key", values.type, nullable=False), pa.field("value", values.type)]
    entries = pa.StructArray.from_arrays([values, values], fields=fields)
    offsets = pa.py_buffer(struct.pack("<ii", 0, len(values)))
    return pa.Array.from_buffers(pa.map_(values.type, values.type), 1, [None, offsets], children=[entries])


def _words(length):
    indices = pa.Array.from_buffers(pa.int8(), length, [None, pa.py_buffer(bytes(length))])
    return pa.DictionaryArray.from_arrays(indices, pa.array(["x"]))


def _of_one_value(column):
    """Messages of one list or map, of which it has one value; all others lie behind it."""
    *frames, rows = _sent(column)
    data = messages.FlightData.FromString(rows)
    data.data_body = data.data_body.replace(struct.pack("<ii", 0, len(column.values)), struct.pack("<ii", 0, 1), 1)
    return [*frames, data.SerializeToString()]


@pytest.mark.parametrize(
    "make",
    [
        lambda: _map_of(_nothings(9 * MIB)),
        lambda: _long_list(_nothings(9 * MIB)),
        lambda: _map_of(_bits(9 * MIB)),
        lambda: _long_list(_words(9 * MIB)),
    ],
    ids=["maps of nothing", "lists of nothing", "maps of bits", "lists of words"],
)
def test_values_that_no_row_has_are_refused_when_there_are_too_many_to_measure(make):
    with pytest.raises((ResourcesExhausted, UnsupportedRequest), match=r"values|not accepted"):
        _take_all(_of_one_value(make()))


def test_what_a_message_has_beside_its_rows_is_not_decoded():
    schema, rows = _sent([1])
    sink = MagicMock()
    stream = _open(sink)

    stream.take(schema)
    stream.take(b"\x0a\x04\x1a\x02\xff\xff" + rows)

    (written,) = (call.args[0] for call in sink.open_write.return_value.write.call_args_list)
    assert written.to_pydict() == {"n": [1]}


@pytest.mark.parametrize(
    "make",
    [
        lambda: _sent(_large_words()),
        lambda: _sent(_view_bomb()),
        lambda: _sent(_long_list(_large_words())),
        lambda: _sent(_long_list(pa.nulls(2**31 - 1))),
        lambda: _sent(_long_list(pa.StructArray.from_buffers(pa.struct([]), 2**31 - 1, [None]))),
        lambda: _sent(pa.nulls(32 * MIB, pa.int8()).fill_null(0), compression="zstd"),
        _formerly_compressed,
        _growing_dictionaries,
        lambda: _dictionaries_of_metadata(MIB // 2),
        lambda: _dictionaries_of_metadata(16 * MIB),
        lambda: _sent(pa.Array.from_buffers(pa.null(), 2**31 - 1, [None])),
    ],
    ids=[
        "dictionary",
        "views",
        "one row",
        "null lists",
        "empty structs",
        "compression",
        "former compression",
        "dictionaries",
        "metadata of dictionaries",
        "large metadata",
        "nulls",
    ],
)
def test_little_that_stands_for_much_is_refused_before_it_is_unpacked(make):
    frames = make()

    assert _peak_growth(frames) < 64 * MIB


@pytest.mark.parametrize("announced", [2**62, -2])
def test_a_false_size_of_compressed_data_is_not_believed(announced):
    schema, rows = _sent([0] * 1000, compression="zstd")
    data = messages.FlightData.FromString(rows)
    data.data_body = announced.to_bytes(8, "little", signed=True) + data.data_body[8:]

    assert _peak_growth([schema, data.SerializeToString()]) < MIB


def test_a_compressed_buffer_outside_of_its_body_is_refused():
    schema, rows = _sent([0] * 1000, compression="lz4")
    data = messages.FlightData.FromString(rows)
    header = bytearray(data.data_header)
    position = header.index(len(data.data_body).to_bytes(8, "little")[:2])  # the last length that the header tells
    header[position : position + 2] = b"\xff\x7f"
    data.data_header = bytes(header)

    with pytest.raises(UsageError):
        _take_all([schema, data.SerializeToString()])


DEEP = functools.reduce(lambda kind, _: pa.list_(kind), range(9), pa.int8())


@pytest.mark.parametrize(
    ("schema", "error"),
    [
        (pa.schema({"n": DEEP}), ResourcesExhausted),
        (pa.schema([(f"c{index}", pa.int8()) for index in range(513)]), ResourcesExhausted),
        (pa.schema({"n": pa.struct([(f"c{index}", pa.int8()) for index in range(2048)])}), ResourcesExhausted),
        (pa.schema({"n" * 2 * MIB: pa.int8()}), ResourcesExhausted),
        (pa.schema([("n", pa.int8()), ("n", pa.int8())]), UsageError),
        (pa.schema({"n\n": pa.int8()}), UsageError),
        (pa.schema([]), UsageError),
    ],
    ids=["deep", "wide", "wide inside", "long", "doubled", "line feed", "nothing"],
)
def test_a_schema_that_is_not_accepted_is_refused_before_any_row(schema, error):
    stream = _open(sink := MagicMock())
    (opening,) = encode_stream(schema=schema)

    with pytest.raises(error):
        stream.take(opening)

    sink.open_write.assert_not_called()


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


def test_messages_that_do_not_come_in_order_after_a_schema_are_refused():
    schema, rows = _sent([1])

    for frames in ([rows], [schema, schema], [schema, rows, schema], [messages.FlightData().SerializeToString()]):
        with pytest.raises(UsageError):
            _take_all(frames)
