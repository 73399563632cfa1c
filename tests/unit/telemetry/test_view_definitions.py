"""The statements that create and drop materialized views."""

import pytest

from micromegas_jupyter.errors import InvalidStatement
from micromegas_jupyter.telemetry.view_definitions import CreateView, DropView, ViewDefinition, parse_view_statement

CREATE = """-- Lines /* per minute.
/* of /* all */ programs */ create or replace Materialized View per_minute WITH (
  extract_query = $q$SELECT 'it''s; $$' AS t FROM log_entries$q$,
  count_src_query = 'SELECT sum(n) AS count FROM blocks WHERE t >= ''{begin}'' AND t < ''{end}''',
  merge_partitions_query = $$SELECT t FROM {source}$$,
  update_group = 4000, time_column = 't', source_partition_delta = '1 day'
) ;
"""


def test_a_statement_is_read_as_upstream_writes_it():
    found = parse_view_statement(CREATE)

    assert isinstance(found, CreateView)
    assert found.replaces
    view = found.definition
    assert (view.name, view.update_group, view.range_columns) == ("per_minute", 4000, ("t", "t"))
    assert view.extract_query == "SELECT 'it''s; $$' AS t FROM log_entries"
    assert view.count_src_query.endswith("t >= '{begin}' AND t < '{end}'")
    assert view.options == {"source_partition_delta": "1 day"}
    assert ViewDefinition.from_properties(view.to_properties()) == view
    assert ViewDefinition.from_properties({}) is None


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("DROP MATERIALIZED VIEW a;", DropView("a", if_exists=False)),
        ("/* x */ drop materialized view if exists a", DropView("a", if_exists=True)),
        ("SELECT 'CREATE MATERIALIZED VIEW a'", None),
        ("SELECT * FROM materialized", None),
        ("-- CREATE MATERIALIZED VIEW a\nSELECT 1", None),
        ("CREATE TABLE materialized (a INT)", None),
    ],
)
def test_other_statements_are_not_definitions(sql, found):
    assert parse_view_statement(sql) == found


@pytest.mark.parametrize(
    ("changed", "by"),
    [
        ("4000", "'4000'"),
        ("4000", "99999999999"),
        ("update_group = 4000,", ""),
        ("time_column = 't'", "min_time_column = 't'"),
        ("time_column = 't'", "color = 't'"),
        ("time_column = 't'", "time_column = 't', time_column = 't'"),
        ("{source}", "log_entries"),
        ("{end}", ""),
        ("1 day", "one day"),
        (") ;", ") AS SELECT 1;"),
        (") ;", "); DROP MATERIALIZED VIEW other"),
        ("per_minute WITH", "a.b WITH"),
        ("$q$,", "$q$"),
        ("$q$SELECT", "$p$SELECT"),
    ],
)
def test_a_definition_that_lacks_something_is_rejected(changed, by):
    with pytest.raises(InvalidStatement):
        parse_view_statement(CREATE.replace(changed, by))
