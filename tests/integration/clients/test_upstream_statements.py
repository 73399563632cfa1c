"""What upstream's documentation and notebooks do runs here, for its own client, or is listed with the reason."""

import datetime as dt
import re

import micromegas.admin
import pyarrow as pa
import pytest
from micromegas.auth import StaticTokenAuthProvider
from micromegas.flightsql.client import FlightSQLClient

from tests.architecture.guide_text import read_page
from tests.integration.clients.upstream_statements import ABSENT, PROCESS, RUNS, STREAM, split

pytestmark = pytest.mark.integration

# The functions and views that upstream's pages describe.
DESCRIBED = """
view_instance process_spans perfetto_trace_chunks parse_block jsonb_each jsonb_array_elements expand_histogram
list_partitions list_view_sets list_view_set_definitions list_query_denials list_audience_grants deny_queries
materialize_partitions regenerate_partitions retire_partitions retire_partition_by_metadata retire_partition_by_file
remove_query_denial jsonb_parse jsonb_path_query jsonb_path_query_first jsonb_get jsonb_format_json jsonb_as_string
jsonb_as_f64 jsonb_as_i64 jsonb_object_keys jsonb_array_length get_payload property_get properties_length
properties_to_dict properties_to_jsonb properties_to_array make_histogram sum_histograms quantile_from_histogram
variance_from_histogram count_from_histogram sum_from_histogram rgba lerp_color color_scale bin_center lerp unlerp
log_entries measures processes streams blocks log_stats thread_spans async_events net_spans otel_spans images
"""
NOT_HERE = read_page("migration.md").partition("## What of Micromegas isn't here")[2]


class Bearer:
    """Signs in with a token; for both clients."""

    def __init__(self, token):
        self._token = token

    def get_token(self):
        return self._token


@pytest.fixture(scope="module")
def administrator(server):
    return FlightSQLClient(server.uri, auth_provider=StaticTokenAuthProvider(server.tokens["alice"]))


@pytest.mark.parametrize("page", RUNS)
def test_statements_of_each_page_run(administrator, page):
    for statement in split(RUNS[page].replace("{P}", PROCESS).replace("{S}", STREAM)):
        administrator.query(statement)


@pytest.mark.parametrize(("statement", "words"), ABSENT.values(), ids=ABSENT)
def test_what_does_not_run_gets_an_error_that_helps(administrator, statement, words):
    with pytest.raises((pa.ArrowInvalid, pa.ArrowNotImplementedError), match=words):
        administrator.query(statement)


@pytest.mark.parametrize("name", [name for names in ABSENT for name in re.findall(r"(?<!\\)[A-Za-z_]\w{2,}", names)])
def test_what_does_not_run_is_listed_with_the_reason(name):
    assert name in NOT_HERE


def test_each_function_and_view_of_upstream_is_tried_or_listed():
    tried = " ".join(RUNS.values()) + " ".join(ABSENT)
    assert [name for name in DESCRIBED.split() if not re.search(rf"\b{name}\b", tried)] == []


@pytest.mark.parametrize(
    ("call", "result"),
    [
        ('jsonb_path_query(jsonb_parse(\'{"a": [{"b": 1}, {"b": 7}]}\'), \'$.a[*] ? (@.b > 5)\')', '[{"b":7}]'),
        ("jsonb_path_query(jsonb_parse('{\"a\": 1}'), '$.missing')", "[]"),
        ("jsonb_path_query_first(jsonb_parse('{\"a\": [10, 20]}'), '$.a[1]')", "20"),
    ],
)
def test_paths_find_what_they_find_there(administrator, call, result):
    assert administrator.query(f"SELECT jsonb_format_json({call}) AS found")["found"].tolist() == [result]


def test_steps_of_upstreams_notebooks_about_logs_and_traces(administrator):
    now = dt.datetime.now(dt.UTC)
    sql = "SELECT time, level, exe, target, msg FROM log_entries WHERE level <= 4 ORDER BY time DESC LIMIT 10"
    assert len(administrator.query(sql, now - dt.timedelta(days=7), now)) == 10
    administrator.query(
        'SELECT process_id, "processes.exe" AS exe, sum(payload_size) AS size FROM blocks WHERE '
        "array_has(blocks.\"streams.tags\", 'cpu') GROUP BY process_id, exe ORDER BY 2 DESC LIMIT 10"
    )
    frame = administrator.query(
        f"WITH b AS (SELECT span_id, time AS begin_time, name FROM view_instance('async_events', '{PROCESS}') "
        f"WHERE event_type = 'begin'), e AS (SELECT span_id, time AS end_time FROM view_instance('async_events', "
        f"'{PROCESS}') WHERE event_type = 'end') SELECT b.*, e.end_time FROM b JOIN e ON b.span_id = e.span_id;"
    )
    assert (frame["end_time"] - frame["begin_time"]).empty


def test_steps_of_upstreams_notebook_about_properties(server):
    client = FlightSQLClient(
        server.uri, auth_provider=StaticTokenAuthProvider(server.tokens["alice"]), preserve_dictionary=True
    )
    frame = client.query(
        "WITH m AS (SELECT properties_to_dict(properties) AS p, properties_length(properties) AS n FROM measures) "
        "SELECT properties_length(p) AS again, n, property_get(p, 'target') FROM m"
    )
    assert (frame["again"] == frame["n"]).all()
    table = client.query_arrow("SELECT properties_to_dict(properties) AS properties FROM measures")
    assert pa.types.is_dictionary(table.schema.field("properties").type)


def test_steps_of_upstreams_notebooks_about_partitions(administrator, capsys):
    end = dt.datetime.combine(dt.datetime.now(dt.UTC), dt.time(), dt.UTC)
    begin = end - dt.timedelta(days=10)
    assert micromegas.admin.list_incompatible_partitions(administrator).empty
    assert micromegas.admin.retire_incompatible_partitions(administrator).empty
    others = "SELECT view_set_name FROM list_partitions() WHERE view_instance_id != 'global' GROUP BY view_set_name"
    assert administrator.query(others).empty
    for view in ("blocks", "streams", "processes", "log_entries", "measures", "log_stats"):
        administrator.materialize_partitions(view, begin, end, 60 * 60 * 24)
        assert view in capsys.readouterr().out
    # Not there to be retired: listed.
    with pytest.raises(pa.ArrowInvalid, match="No rows are stored"):
        administrator.retire_partitions("async_events", PROCESS, begin, end)
    assert "async_events" in NOT_HERE
