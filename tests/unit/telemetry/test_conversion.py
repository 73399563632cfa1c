"""Rows for the tables of the data model are accepted however they are written down, as long as nothing is lost."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from micromegas_jupyter.core.jsonb import decode, encode
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.telemetry.conversion import check_columns, check_targets, convert_rows
from micromegas_jupyter.telemetry.tables import LOG_ENTRIES, PROCESSES, STREAMS
from tests.fakes.telemetry_rows import NOON_NS, PAIRS, log_batch, sent_processes

_JSONB = bytes.fromhex("400000011000000110000001") + b"ab"
_NONE = bytes.fromhex("40000000")
_WHEN = datetime(2026, 11, 24, 12, tzinfo=UTC)
_MAP = pa.map_(pa.utf8(), pa.utf8())


def _convert(rows, definition=PROCESSES):
    check_columns(rows.schema, definition)
    converted = convert_rows(rows.to_batches()[0], definition)
    converted.validate(full=True)
    return converted


@pytest.mark.parametrize(
    "properties",
    [
        pa.array([[{"key": "a", "value": "b"}], None], PAIRS),
        pa.array([[{"key": "a", "value": "b"}], None], pa.large_list(PAIRS.value_type)),
        pa.array([[("a", "b")], None], _MAP), pa.array([[("x", "y")], [("a", "b")], None], _MAP).slice(1),
        pa.array([_JSONB, None]), pa.array([_JSONB, None], pa.large_binary()),
        pa.array([_JSONB, None], pa.binary_view()), pa.array([_JSONB, None]).dictionary_encode(),
        pa.DictionaryArray.from_arrays(pa.array([0, None]), pa.array([[{"key": "a", "value": "b"}]], PAIRS)),
    ],
    ids=["pairs", "large pairs", "map", "slice", "jsonb", "large jsonb", "jsonb views", "jsonb words", "pair words"],
)  # fmt: skip
def test_properties_come_in_many_ways(properties):
    converted = _convert(sent_processes("1", "2", properties=properties))

    assert converted["properties"].to_pylist() == [_JSONB, _NONE]


def test_binary_json_is_kept_byte_for_byte():
    signed, unsorted = encode({"n": 7}, is_signed=True), bytes.fromhex("40000002100000011000000130000000400000006261")
    ones = [signed, unsorted, encode({"deep": [1, 2.5, None, {"a": True}]}), signed]

    converted = _convert(sent_processes(*"abcd", properties=pa.array(ones)))["properties"]

    assert converted.to_pylist() == ones
    assert len(converted.dictionary) == 3


def test_pairs_become_members_of_text_or_null():
    sent = pa.array([[("b", "1"), ("a", None), ("b", "2")], [], [("é", "")]] * 2, _MAP)

    converted = _convert(sent_processes(*"abcdef", properties=sent))["properties"]

    assert [decode(one) for one in converted.to_pylist()] == [{"a": None, "b": "2"}, {}, {"é": ""}] * 2
    assert len(converted.dictionary) == 3


@pytest.mark.parametrize("kind", [pa.large_utf8(), pa.string_view(), pa.dictionary(pa.int8(), pa.utf8())], ids=str)
def test_text_comes_in_many_ways(kind):
    converted = _convert(sent_processes("1", "2", exe=pa.array(["x", None]).cast(kind)))

    assert converted["exe"].to_pylist() == ["x", None]


@pytest.mark.parametrize("kind", [pa.timestamp("s"), pa.timestamp("ms", "UTC"), pa.timestamp("us", "+02:00")], ids=str)
def test_times_come_in_many_units(kind):
    sent = pa.array([NOON_NS // 10**9], pa.timestamp("s", "UTC")).cast(kind)

    assert _convert(sent_processes("1", start_time=sent))["start_time"].cast(pa.int64()).to_pylist() == [NOON_NS]


def test_streams_are_converted_with_tags():
    dictionary, blob = pa.array(["p"]).dictionary_encode(), pa.array([b"o"], pa.large_binary())
    rows = {
        "stream_id": ["s"], "process_id": dictionary, "dependencies_metadata": [b"d"], "objects_metadata": blob,
        "tags": pa.array([["log", None]], pa.large_list(pa.utf8())), "properties": pa.nulls(1),
        "insert_time": pa.array([_WHEN], pa.timestamp("ns", "UTC")), "format": ["f"],
    }  # fmt: skip

    (converted,) = _convert(pa.table(rows), STREAMS).to_pylist()

    assert (converted["tags"], converted["properties"]) == (["log", None], _NONE)
    assert (converted["process_id"], converted["objects_metadata"]) == ("p", b"o")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tsc_frequency": pa.array([2**63], pa.uint64())}, "tsc_frequency contains a value"),
        ({"tsc_frequency": pa.array([1.0])}, "tsc_frequency has the type double"),
        ({"start_time": pa.array([1])}, "start_time has the type int64"),
        ({"start_time": pa.array([2**40], pa.timestamp("s"))}, "start_time contains a value"),
        ({"exe": pa.array([b"x"])}, "exe has the type binary"),
        ({"process_id": pa.nulls(1)}, "value in the column process_id is missing"),
        ({"properties": pa.array([encode([1])])}, "not a JSON object"),
        ({"properties": pa.array([encode({"a": 1})[:-1]])}, "not binary JSON"),
        ({"properties": pa.array([[{"key": None, "value": "b"}]], PAIRS)}, "properties contains a value"),
        ({"properties": pa.array(["{}"])}, "properties has the type string"),
        ({"properties": pa.array([[{"k": "a", "v": "b"}]])}, "properties has the type list"),
        ({"insert_time": None}, "insert_time of processes is missing"),
        ({"extra\u202e": pa.array([1])}, "doesn't have a column"),
    ],
)
def test_what_does_not_fit_is_refused_by_column(changes, words):
    with pytest.raises(UsageError, match=words):
        _convert(sent_processes("1", **changes))


def test_the_servers_own_targets_are_told_from_others():
    check_targets(convert_rows(log_batch([1], writer="micromegas_jupyter2"), LOG_ENTRIES))

    for target in ("micromegas_jupyter", "micromegas_jupyter.audit.access", "flightsql_query_audit"):
        with pytest.raises(UsageError):
            check_targets(convert_rows(log_batch([1], writer=target), LOG_ENTRIES))
