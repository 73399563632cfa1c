"""The schemas of rows, on the wire and behind conditions."""

from __future__ import annotations

import pyarrow as pa
import pytest

from micromegas_jupyter.engine.schemas import flat_schema, to_wire, wire_schema

WORD = pa.dictionary(pa.int32(), pa.string())


@pytest.mark.parametrize(
    ("found", "flat", "kept"),
    [
        (pa.int64(), pa.int64(), pa.int64()),
        (pa.string_view(), pa.string(), pa.string()),
        (pa.binary_view(), pa.binary(), pa.binary()),
        (pa.timestamp("s"), pa.timestamp("ns"), pa.timestamp("ns")),
        (pa.timestamp("us", "+00:00"), pa.timestamp("ns", "+00:00"), pa.timestamp("ns", "+00:00")),
        (WORD, pa.string(), WORD),
        (pa.dictionary(pa.int16(), pa.binary_view()), pa.binary(), pa.dictionary(pa.int16(), pa.binary())),
        (pa.list_(pa.string_view()), pa.list_(pa.string()), pa.list_(pa.string())),
        (pa.large_list(WORD), pa.large_list(pa.string()), pa.large_list(WORD)),
        (pa.list_view(pa.string_view()), pa.list_(pa.string()), pa.list_(pa.string())),
        (pa.list_(pa.string_view(), 2), pa.list_(pa.string(), 2), pa.list_(pa.string(), 2)),
        (pa.struct({"a": WORD}), pa.struct({"a": pa.string()}), pa.struct({"a": WORD})),
        (pa.map_(pa.string(), pa.string_view()), pa.map_(pa.string(), pa.string()), pa.map_(pa.string(), pa.string())),
    ],
)
def test_a_type_has_one_form_on_the_wire(found: pa.DataType, flat: pa.DataType, kept: pa.DataType) -> None:
    schema = pa.schema([pa.field("x", found, nullable=False, metadata={"k": "v"})], metadata={"pandas": "{}"})

    flattened = wire_schema(schema, preserve_dictionary=False)
    preserved = wire_schema(schema, preserve_dictionary=True)

    assert flattened.equals(pa.schema([pa.field("x", flat, nullable=False, metadata={"k": "v"})]), check_metadata=True)
    assert preserved.field("x").type == kept


COLUMNS = {
    "view": pa.array(["a", None, "", "b"], pa.string_view()),
    "bytes": pa.array([b"a", None, b"", b"b"], pa.binary_view()),
    "seconds": pa.array([1, None, 3, 4], pa.timestamp("s", "UTC")),
    "word": pa.array(["a", None, "a", "b"]).dictionary_encode(),
    "word of views": pa.DictionaryArray.from_arrays(
        pa.array([0, None, 0, 1], pa.int32()), pa.array(["a", "b"], pa.string_view())
    ),
    "properties": pa.DictionaryArray.from_arrays(
        pa.array([0, None, 0, 1], pa.int32()),
        pa.array([[{"key": "k", "value": "v"}], []], pa.list_(pa.struct({"key": pa.string(), "value": pa.string()}))),
    ),
    "list": pa.array([["a"], None, [], ["b", None]], pa.list_(pa.string_view())),
    "large list": pa.array([["a"], None, [], ["b", None]], pa.large_list(pa.string_view())),
    "list view": pa.array([["a"], None, [], ["b", None]], pa.list_view(pa.string())),
    "list of words": pa.ListArray.from_arrays(
        pa.array([0, 1, None, 2, 3], pa.int32()), pa.array(["a", "b", "a"]).dictionary_encode()
    ),
    "struct": pa.StructArray.from_arrays(
        [pa.array(["a", "b", None, "a"]).dictionary_encode(), pa.array([1, 2, 3, 4])],
        names=["word", "number"],
        mask=pa.array([False, True, False, False]),
    ),
    "map": pa.array([[("a", "b")], None, [], [("c", None)]], pa.map_(pa.string(), pa.string_view())),
}


@pytest.mark.parametrize("preserve_dictionary", [False, True])
@pytest.mark.parametrize("rows", [slice(0, 4), slice(1, 3), slice(4, 4)])
@pytest.mark.parametrize("name", COLUMNS)
def test_a_batch_keeps_its_values(name: str, rows: slice, *, preserve_dictionary: bool) -> None:
    batch = pa.record_batch({name: COLUMNS[name][rows]})
    schema = wire_schema(batch.schema, preserve_dictionary=preserve_dictionary)

    converted = to_wire(batch, schema)

    converted.validate(full=True)
    assert converted.schema.equals(schema, check_metadata=True)
    assert converted.column(0).to_pylist() == batch.column(0).to_pylist()


def test_two_columns_of_one_name_stay_two() -> None:
    batch = pa.RecordBatch.from_arrays([pa.array(["a"], pa.string_view()), pa.array([2])], names=["x", "x"])

    converted = to_wire(batch, wire_schema(batch.schema, preserve_dictionary=False))

    assert [column.to_pylist() for column in converted.columns] == [["a"], [2]]


WORD = pa.dictionary(pa.int32(), pa.string())


def test_a_dictionary_becomes_its_values_wherever_it_is() -> None:
    schema = pa.schema(
        [
            pa.field("a", WORD, nullable=False, metadata={"k": "v"}),
            pa.field("b", pa.list_(pa.field("item", WORD))),
            pa.field("c", pa.large_list(WORD)),
            pa.field("d", pa.list_(WORD, 2)),
            pa.field("e", pa.struct([pa.field("x", WORD)])),
            pa.field("f", pa.map_(pa.string(), WORD)),
            pa.field("g", pa.timestamp("us")),
        ]
    )

    flat = flat_schema(schema)

    assert "dictionary" not in str(flat)
    assert flat.field("a") == pa.field("a", pa.string(), nullable=False, metadata={"k": "v"})
    assert flat.field("d").type == pa.list_(pa.string(), 2)
    assert flat.field("f").type == pa.map_(pa.string(), pa.string())
    assert flat.field("g") == schema.field("g")
