"""Binary JSON is shown as JSON, by whatever server it was sent; other bytes never are, and none is lost."""

import math

import pyarrow as pa
import pytest

from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.client.json_columns import to_frame
from micromegas_jupyter.core.jsonb import encode, holds_jsonb, is_declared_jsonb, with_json
from micromegas_jupyter.errors import UsageError
from tests.fakes.flight_server import FakeFlightServer, rows

VECTOR = bytes.fromhex("400000011000000410000005") + b"namevalue"
VALUES = [VECTOR, None, encode({"n": 7, "deep": [1.5, True, None]}), VECTOR]
TEXTS = ['{"name":"value"}', None, '{"deep":[1.5,true,null],"n":7}', '{"name":"value"}']
DICTIONARY = pa.dictionary(pa.int32(), pa.binary())
NAMED = {b"ARROW:FLIGHT:SQL:TYPE_NAME": b"jsonb"}


@pytest.fixture
def upstream():
    """A server that answers as upstream's: fields without metadata, dictionaries only for those who keep them."""
    server = FakeFlightServer()

    def answer(call):
        keeps = call.metadata.get("preserve_dictionary") == "true"
        properties = pa.array(VALUES).dictionary_encode() if keeps else pa.array(VALUES)
        yield from rows(pa.table({"properties": properties, "hash": [b"\x04", b"\x00\x01\x02\x03", None, b""]}))

    server.answers["DoGet"] = answer
    yield server
    server.close()


def _values(series):
    return series.astype(object).where(series.notna(), None).tolist()


@pytest.mark.parametrize("keeps", [False, True])
def test_a_client_shows_what_upstream_sends_as_json_and_keeps_bytes_on_request(upstream, keeps):
    with FlightSQLClient(upstream.uri, preserve_dictionary=keeps) as client:
        shown, kept = client.query("SELECT 1"), client.query("SELECT 1", jsonb="bytes")
        arrow, as_json = client.query_arrow("SELECT 1"), client.query_arrow("SELECT 1", jsonb="json")
        with pytest.raises(UsageError):
            client.query("SELECT 1", jsonb="text")

    assert _values(shown["properties"]) == TEXTS
    assert _values(kept["properties"]) == VALUES
    assert list(shown["hash"]) == list(kept["hash"]) == [b"\x04", b"\x00\x01\x02\x03", None, b""]
    assert (arrow["properties"].to_pylist(), as_json["properties"].to_pylist()) == (VALUES, TEXTS)
    assert arrow.schema.field("properties").type == (DICTIONARY if keeps else pa.binary())


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view(), DICTIONARY], ids=str)
def test_every_layout_of_bytes_is_shown(kind):
    column = pa.chunked_array([pa.array(VALUES, pa.binary()).cast(kind), pa.array(VALUES[:1], pa.binary()).cast(kind)])

    shown = with_json(pa.table({"p": column}))["p"]

    assert shown.to_pylist() == [*TEXTS, TEXTS[0]]
    assert pa.types.is_dictionary(shown.type) == pa.types.is_dictionary(kind)


@pytest.mark.parametrize(
    "values",
    [[b"{}"], [b""], [VECTOR, VECTOR[:-1]], [VECTOR + b"\0"], [b"\x80ab", encode({})], [b"\x89PNG\r\n\x1a\n"]],
    ids=["text", "nothing", "cut", "longer", "mixed", "picture"],
)
@pytest.mark.parametrize("metadata", [None, NAMED], ids=["unnamed", "named"])
def test_other_bytes_stay_bytes(values, metadata):
    table = pa.table({"p": values}, schema=pa.schema([pa.field("p", pa.binary(), metadata=metadata)]))

    assert with_json(table).equals(table)


def test_a_value_that_is_not_json_far_behind_keeps_the_whole_column_as_bytes():
    table = pa.table({"p": [*(encode({"n": number}) for number in range(500)), b"no JSON"]})

    assert holds_jsonb(table.schema.field("p"), table["p"])
    assert to_frame(table)["p"].iloc[0] == encode({"n": 0})


@pytest.mark.parametrize(
    ("field", "is_jsonb"),
    [
        (pa.field("p", pa.binary(), metadata=NAMED), True),
        (pa.field("p", DICTIONARY), True),
        (pa.field("p", pa.binary()), False),
        (pa.field("p", pa.string(), metadata=NAMED), False),
        (pa.field("p", pa.dictionary(pa.int32(), pa.string())), False),
    ],
)
def test_without_values_the_schema_decides(field, is_jsonb):
    empty, nulls = (pa.chunked_array([pa.nulls(size, field.type)]) for size in (0, 3))

    assert is_declared_jsonb(field) is holds_jsonb(field, empty) is holds_jsonb(field, nulls) is is_jsonb


def test_what_json_has_no_number_for_is_null_in_the_text_only():
    table = pa.table({"p": [encode({"x": math.nan})]})

    assert with_json(table)["p"].to_pylist() == ['{"x":null}']
    assert to_frame(table, jsonb="bytes")["p"].tolist() == [encode({"x": math.nan})]
