"""The calls of Grafana's two Flight SQL plugins, also with the data sources of docs/grafana.md."""

import datetime as dt
import logging
from contextlib import closing

import grpc
import pyarrow as pa
import pytest
import yaml
from micromegas.flightsql import FlightSql_pb2

from tests.architecture.guide_text import blocks
from tests.fakes.telemetry_rows import NOON
from tests.integration.clients.grafana import GO_MESSAGE_LIMIT, GrafanaClient, can_show, fetch_token
from tests.integration.clients.serving import MANY_COUNT, TABLE_NAMES, audit_lines

pytestmark = pytest.mark.integration

FROM, TO = f"{NOON:%F}T12:00:00Z", f"{NOON:%F}T12:00:29.5Z"
RANGE = (("query_range_begin", FROM), ("query_range_end", TO))
NAMES = (("x-user-id", "zoe"), ("x-user-email", "zoe%40example.com"), ("x-user-name", "Zo%C3%AB"))
ATTRIBUTION = (("x-client-type", "grafana"), *NAMES, ("x-org-id", "1"))
# What the macros of the editor become, for a panel from `FROM` to `TO` with an interval of ten seconds.
FILTER = f"time >= '{FROM}' AND time <= '{TO}'"
BIN = "date_bin(interval '10 second', time, timestamp '1970-01-01T00:00:00Z')"
GROUP = "datepart('year', time),datepart('month', time),datepart('day', time),datepart('hour', time)"


def address(server):
    return f"{server.host}:{server.port}"


@pytest.fixture(scope="module")
def grafana(server):
    """A data source with an API key as its token."""
    with closing(GrafanaClient(address(server), (("authorization", server.bearer("reader")),))) as client:
        yield client


def test_save_and_test(grafana):
    assert grafana.query("select 1").columns[0].to_pylist() == [1]


def test_the_editor_completes_keywords_and_functions(grafana):
    facts = grafana.sql_info()

    lists = {number: facts[number] for number in range(508, 513)}
    assert all(words and all(isinstance(word, str) for word in words) for words in lists.values())
    assert ("SELECT" in lists[508], "date_bin" in lists[512]) == (True, True)


def test_the_editor_lists_tables_and_columns(grafana):
    assert [name for name in grafana.tables() if not name.startswith("__")] == TABLE_NAMES
    assert grafana.columns("measures").names[-5:-2] == ["name", "unit", "value"]


def test_a_panel_is_cut_to_its_range_and_its_width(grafana):
    sql = "SELECT time, value FROM measures ORDER BY time"

    assert grafana.query(sql).num_rows == 60
    assert grafana.query(sql, *RANGE).num_rows == 30
    assert grafana.query(sql, *RANGE, ("limit", "10"))["value"].to_pylist() == [float(n) for n in range(10)]


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        (f"SELECT time, value FROM measures WHERE {FILTER}", 30),
        (f"SELECT {BIN} AS time, avg(value) FROM measures WHERE {FILTER} GROUP BY 1 ORDER BY 1", 3),
        (f"SELECT {BIN} as time_binned, name, max(value) FROM measures GROUP BY {BIN}, name ORDER BY 1", 6),
        (f"SELECT {GROUP}, count(*) FROM measures GROUP BY {GROUP}", 1),
        ("SELECT DISTINCT name FROM measures WHERE name IN ('load','it''s')", 1),
        ("SELECT time, level, target, msg AS body FROM log_entries ORDER BY time DESC LIMIT 100", 100),
    ],
)
def test_the_macros_of_the_editor(grafana, sql, rows):
    table = grafana.query(sql)

    assert table.num_rows == rows
    assert [field.name for field in table.schema if not can_show(field.type)] == []


def test_a_cast_shows_what_is_not_shown_as_it_is(grafana):
    hidden = [field.name for field in grafana.query("SELECT * FROM wide").schema if not can_show(field.type)]

    assert hidden == ["price", "long_word", "blob", "uuid", "day", "clock", "numbers", "pair", "tags"]
    casts = "CAST(price AS DOUBLE), CAST(long_word AS VARCHAR), CAST(day AS VARCHAR), CAST(clock AS VARCHAR)"
    parts = "encode(blob, 'hex'), array_to_string(numbers, ','), pair['b'], tags['k']"
    shown = grafana.query(f"SELECT {casts}, {parts} FROM wide").schema
    assert shown.types == [pa.float64(), *[pa.string()] * 7]


def test_no_message_is_larger_than_go_takes(grafana):
    table = grafana.query("SELECT n, repeat(text, 20) AS long FROM many")

    assert table.nbytes > 5 * GO_MESSAGE_LIMIT
    assert table.num_rows == MANY_COUNT


def test_an_api_key_speaks_for_whoever_looks_at_the_panel(grafana, caplog):
    caplog.set_level(logging.INFO, logger="micromegas_jupyter.audit")

    grafana.query("SELECT count(*) AS seen FROM log_entries", *RANGE, ("limit", "1000"), *ATTRIBUTION)

    (line,) = audit_lines(caplog, "SELECT count(*) AS seen FROM log_entries")
    assert (line["client"], line["user"], line["email"], line["name"]) == ("grafana", "zoe", "zoe@example.com", "Zoë")
    assert (line["service_account"], line["service_account_name"]) == (True, "reader")
    assert dt.datetime.fromisoformat(line["range_end"]) == dt.datetime.fromisoformat(TO)
    assert line["limit"] == 1000


def test_a_person_s_token_speaks_for_nobody_else(server):
    with closing(GrafanaClient(address(server), (("authorization", server.bearer("bob")),))) as client:
        assert client.query("select 1", ("x-user-id", "bob")).num_rows == 1
        refused = client.ask(FlightSql_pb2.CommandStatementQuery(query="select 1"), *ATTRIBUTION)

    assert refused.code is grpc.StatusCode.PERMISSION_DENIED


MICROMEGAS, INFLUXDATA = "micromegas-micromegas-datasource", "influxdata-flightsql-datasource"
# What the plugins read of `jsonData`; the first one alone knows the rest.
SETTINGS = {"host", "secure", "selectedAuthType", "metadata", "username"}
OWN_SETTINGS = {"oauthIssuer", "oauthClientId", "oauthAudience", "enableUserAttribution"}
SOURCES = [
    (block.place, source)
    for block in blocks("grafana.md")
    if block.language == "yaml"
    for source in yaml.safe_load(block.text)["datasources"]
]


@pytest.fixture(params=[source for _place, source in SOURCES], ids=[place for place, _source in SOURCES])
def source(request):
    return request.param


def token_of(settings, encrypted):
    """Return the header with the token that Micromegas's plugin gets with these settings."""
    provider = encrypted.provider
    own = {"oauthIssuer": provider.issuer, "oauthClientId": provider.service_client_id,
           "oauthAudience": provider.lake_audience}  # fmt: skip
    assert own.keys() <= settings.keys()
    return "authorization", f"Bearer {fetch_token(own, provider.service_secret.reveal())}"


def open_source(encrypted, *metadata):
    roots = encrypted.authority.encode()
    return closing(GrafanaClient(address(encrypted.server), metadata, root_certificates=roots))


def test_a_data_source_of_the_guide_has_settings_that_its_plugin_reads_and_secrets_in_files(source):
    secrets, known = source["secureJsonData"], SETTINGS | (OWN_SETTINGS if source["type"] == MICROMEGAS else set())

    assert source["type"] in {MICROMEGAS, INFLUXDATA}
    assert set(source["jsonData"]) <= known
    assert set(secrets) == {"oauthClientSecret" if source["jsonData"]["selectedAuthType"] == "oauth2" else "token"}
    assert all(value.startswith("$__file{/") for value in secrets.values())


def test_a_panel_of_a_data_source_of_the_guide_shows_its_rows(source, encrypted):
    settings = source["jsonData"]
    names = ATTRIBUTION if settings.get("enableUserAttribution") else ()
    key = ("authorization", encrypted.server.bearer("reader"))
    credential = token_of(settings, encrypted) if settings["selectedAuthType"] == "oauth2" else key

    with open_source(encrypted, credential) as client:
        table = client.query("SELECT time, value FROM measures ORDER BY time", *RANGE, *names)

    assert settings["secure"]
    assert table.num_rows == 30


def test_calls_without_the_token_with_a_key_beside_it_and_for_a_viewer_are_refused(encrypted):
    (settings,) = [each["jsonData"] for _place, each in SOURCES if each["jsonData"]["selectedAuthType"] == "oauth2"]
    token, key = token_of(settings, encrypted), ("authorization", encrypted.server.bearer("reader"))
    test = FlightSql_pb2.CommandStatementQuery(query="select 1")

    with open_source(encrypted) as client:
        codes = [client.ask(test, *metadata).code for metadata in ((), (token, key), (token, *ATTRIBUTION), (token,))]

    assert [code.name for code in codes] == ["UNAUTHENTICATED", "UNAUTHENTICATED", "PERMISSION_DENIED", "OK"]
