"""The client and this project's server and engine, together; upstream's client beside them."""

import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from micromegas.auth import StaticTokenAuthProvider as UpstreamStaticProvider
from micromegas.flightsql.client import FlightSQLClient as UpstreamClient
from pandas.testing import assert_frame_equal

from micromegas_jupyter.client.commands import ServerIdentity
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.errors import InvalidStatement, ProviderUnavailable, Rejected, ServerUnavailable, UsageError
from micromegas_jupyter.server.settings import TlsFiles
from tests.fakes.certificates import Authority
from tests.fakes.servers import NUMBERS, open_server
from tests.integration.client.conftest import FixedToken

pytestmark = pytest.mark.integration

_WHEN = datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=UTC)

_TYPES_SQL = """
    SELECT CAST(n AS INT) AS whole, CAST(NULLIF(n, 2) AS BIGINT) AS gaps, n * 0.5 AS real, CAST(n AS TEXT) AS text,
           n > 1 AS flag, make_array(n, n) AS list, named_struct('k', n) AS struct,
           arrow_cast('2026-01-01T00:00:00Z', 'Timestamp(Nanosecond, Some("+00:00"))') AS time,
           arrow_cast('word', 'Dictionary(Int32, Utf8)') AS word
    FROM (VALUES (1), (2), (3)) AS t(n) ORDER BY n
"""


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, None), (2**64 - 1, 2**64 - 1), (1.5, 1.5), ("it's :a; -- \0 é", "it's :a; -- \0 é"),
        (b"\0\xff", b"\0\xff"), (Decimal("0.10"), Decimal("0.10")), (_WHEN, _WHEN), (_WHEN.date(), _WHEN.date()),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_value_comes_back_as_it_went(alice, value, found):
    table = alice.query_arrow("SELECT :a AS a", params={"a": value})

    assert table.to_pylist() == [{"a": found}]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_as_it_went(alice, text):
    table = alice.query_arrow("SELECT :a AS a", params={"a": text})

    assert table.to_pylist() == [{"a": text}]


def test_values_choose_rows_and_cannot_change_the_statement(alice):
    source = "(VALUES (1, 'a'), (2, 'b'), (3, 'c')) AS t(n, w)"

    listed = alice.query(f"SELECT n FROM {source} WHERE w IN :words ORDER BY n", params={"words": ["a", "c"]})
    hostile = alice.query(f"SELECT n FROM {source} WHERE w = :word", params={"word": "' OR '1'='1"})
    later = alice.query("SELECT :now - :ago AS t", params={"now": _WHEN, "ago": timedelta(hours=1)})

    assert listed["n"].tolist() == [1, 3]
    assert len(hostile) == 0
    assert later["t"][0] == pd.Timestamp(_WHEN) - pd.Timedelta(hours=1)


@pytest.mark.parametrize(
    ("sql", "params"),
    [
        ("SELECT ? AS a, ? AS b", [7, "x"]),
        ("SELECT $2 AS b, $1 AS a", (7, "x")),
        ("SELECT $one AS a, :two AS b", {"one": 7, "two": "x"}),
    ],
)
def test_every_spelling_of_a_placeholder_finds_its_value(alice, sql, params):
    assert alice.query_arrow(sql, params=params).to_pylist() == [{"a": 7, "b": "x"}]


def test_a_bound_query_can_be_read_batch_by_batch(alice):
    with alice.open_query(
        "SELECT value FROM range(200000) WHERE value < :n", params={"n": 90_000}, limit=50_000
    ) as reader:
        rows = sum(batch.num_rows for batch in reader)

    assert rows == reader.rows == 50_000
    assert reader.query_id is not None


def test_a_frame_is_the_one_that_upstreams_client_gives(engine_server, alice):
    upstream = UpstreamClient(engine_server.uri, auth_provider=UpstreamStaticProvider("alice"))

    expected = upstream.query(_TYPES_SQL)

    assert_frame_equal(alice.query(_TYPES_SQL), expected)
    assert alice.query_arrow(_TYPES_SQL) == upstream.query_arrow(_TYPES_SQL)


def test_upstreams_provider_is_accepted(engine_server):
    with FlightSQLClient(engine_server.uri, auth_provider=UpstreamStaticProvider("alice")) as client:
        assert client.query("SELECT 1 AS n")["n"].tolist() == [1]


def test_dictionaries_are_kept_where_they_are_asked_for(engine_server):
    with FlightSQLClient(engine_server.uri, preserve_dictionary=True, auth_provider=FixedToken("alice")) as client:
        table = client.query_arrow(_TYPES_SQL)

    assert table.schema.field("word").type == pa.dictionary(pa.int32(), pa.string())


def test_columns_of_a_frame_are_arrows_on_request(alice):
    frame = alice.query("SELECT 1 AS n, CAST(NULL AS BIGINT) AS missing", dtype_backend="pyarrow")

    assert [str(dtype) for dtype in frame.dtypes] == ["int64[pyarrow]", "int64[pyarrow]"]
    assert frame["missing"].isna().tolist() == [True]


def test_the_server_knows_the_caller(alice):
    assert alice.whoami() == ServerIdentity(
        subject="alice",
        issuer="https://id.example",
        auth_type="oidc",
        is_admin=True,
        name="Alice Martin",
        email="alice@example.com",
    )


def test_a_statement_is_prepared(alice):
    statement = alice.prepare_statement("SELECT CAST(1 AS INT) AS n")

    assert statement.dataset_schema.names == ["n"]
    assert [batch.to_pydict() for batch in alice.prepared_statement_stream(statement)] == [{"n": [1]}]


@pytest.mark.parametrize(("token", "kind"), [("mallory", Rejected), ("outage", ProviderUnavailable)])
def test_a_bad_token_and_an_outage_stay_apart(engine_server, token, kind):
    provider = FixedToken(token)
    with FlightSQLClient(engine_server.uri, auth_provider=provider, timeout_seconds=5) as client, pytest.raises(kind):
        client.query("SELECT 1")


def test_a_private_certificate_is_accepted_through_its_authority_only(tmp_path):
    authority = Authority(tmp_path)
    pair = authority.issue("server")
    files = TlsFiles(certificate_file=pair.certificate_file, key_file=pair.key_file)

    with open_server(is_open=True, tls_files=files) as server:
        with FlightSQLClient(server.uri, ca_bundle=authority.ca_file) as client:
            trusted = client.query(NUMBERS)
        with (
            FlightSQLClient(server.uri) as client,
            pytest.raises(ServerUnavailable, match="not issued by an authority"),
        ):
            client.query(NUMBERS)

    assert trusted["n"].tolist() == [1, 2, 3]


def test_a_helper_with_a_hostile_id_finds_nothing(alice):
    with pytest.raises(InvalidStatement):  # this server has no such table, and the id opens no other
        alice.find_process("' UNION SELECT 1 --")
    with pytest.raises(UsageError):
        alice.find_process("a\0b")
