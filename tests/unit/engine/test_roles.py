"""The roles of result columns: what the schema's metadata has of statements over the data model."""

import pyarrow as pa
import pyarrow.parquet
import pytest

from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.telemetry.tables import ROLE_KEY, ROLES, TABLES, UNIT_KEY, find_role, with_remarks
from tests.fakes.fixed_tables import data_files
from tests.unit.engine.conftest import asking

PROCESS = "5f0f2f8c-3c3b-4a5f-9a63-2f0d5f0d7f01"


def model_tables(files=()):
    """Return the tables of the data model, by default without rows."""
    own = TableSnapshot(name="orders", schema=pa.schema({"id": pa.int64(), "time": pa.timestamp("us")}), files=())
    return [
        own,
        *(
            TableSnapshot(
                name=one.name,
                schema=one.schema,
                files=files if one.name == "log_entries" else (),
                range_columns=one.range_columns,
                merge_sql=one.merge_sql,
                raw_name=one.raw_name,
            )
            for one in TABLES
        ),
    ]


@pytest.fixture(scope="module")
def model():
    with asking(model_tables()) as asker:
        yield asker


def roles(schema):
    """Return the role of each column, with its unit in brackets, and - if it has none."""
    found = []
    for field in schema:
        role, unit = ((field.metadata or {}).get(key, b"").decode() for key in (ROLE_KEY, UNIT_KEY))
        found.append((role or "-") + f"[{unit}]" * bool(unit))
    return " ".join(found)


# From the pages of the documentation and the notebooks, and others of their kind: each with the roles of its columns.
EXAMPLES = """
SELECT time, level, msg FROM log_entries
-- time severity text

SELECT time, msg FROM log_entries WHERE level <= ? ORDER BY time LIMIT 10
-- time text

SELECT count(*) AS n FROM log_entries
-- measure[1]

SELECT level, count(*) AS n FROM log_entries GROUP BY level
-- severity measure[1]

SELECT time, level, target, msg FROM log_entries ORDER BY time DESC LIMIT 20
-- time severity category text

SELECT time, value, unit FROM measures WHERE name = $name ORDER BY time
-- time measure category

SELECT time, name, unit, value FROM measures WHERE name LIKE '%cpu_usage'
-- time category category measure

SELECT DISTINCT exe, name, unit FROM measures
-- category category category

SELECT "processes.exe", nb_objects, payload_size FROM blocks
-- category measure[1] measure[By]

SELECT time, level, msg FROM view_instance('log_entries', '{PROCESS}') ORDER BY time
-- time severity text

SELECT date_bin(INTERVAL '1 minute', time) AS time, avg(value) AS load FROM measures WHERE name = 'load' GROUP BY 1
ORDER BY 1
-- time measure

SELECT name, unit, round(avg(value), 1) AS mean, round(max(value), 1) AS peak FROM measures WHERE name IN
('cpu_usage', 'process_cpu_usage') GROUP BY ALL ORDER BY name
-- category category measure measure

SELECT name, unit, avg(value) FILTER (WHERE time < $first) AS before, avg(value) FILTER (WHERE time >= $first) AS
during FROM measures GROUP BY name, unit ORDER BY name
-- category category measure measure

SELECT time, msg, property_get(properties, 'client_id') AS client FROM log_entries WHERE property_get(properties,
'error') IS NOT NULL
-- time text category

SELECT property_get(properties, 'country') AS country, max(value) AS orders FROM measures GROUP BY 1
-- category measure

SELECT regexp_match(msg, '"user":"([^"]*)"')[1] AS caller, count(*) AS statements FROM log_entries GROUP BY 1
-- category measure[1]

SELECT regexp_match(msg, 'a')[1] AS sql_hash, sum(CAST(regexp_match(msg, '"cpu_ms":([0-9.]+)')[1] AS DOUBLE)) AS
cpu_ms FROM log_entries GROUP BY 1
-- category measure

SELECT target, level, sum("count") AS lines, max(time_bin) AS last_minute FROM log_stats WHERE level <= 3 GROUP BY
target, level
-- category severity measure[1] time

SELECT target, count(*) AS lines, count(*) FILTER (WHERE level <= $worst) AS warnings, max(time) AS newest FROM
log_entries GROUP BY target ORDER BY warnings DESC, lines DESC
-- category measure[1] measure[1] time

WITH warnings AS (SELECT time, target, msg, time - lag(time) OVER (PARTITION BY target, msg ORDER BY time) <
interval '5 seconds' AS goes_on FROM log_entries WHERE level <= 3), numbered AS (SELECT *, count(*) FILTER (WHERE
goes_on IS NOT TRUE) OVER (PARTITION BY target, msg ORDER BY time) AS burst FROM warnings) SELECT target, msg,
min(time) AS first, max(time) AS last, count(*) AS lines FROM numbered GROUP BY target, msg, burst HAVING count(*)
>= 10 ORDER BY last DESC
-- category text time time measure[1]

WITH load AS (SELECT date_bin(interval '1 second', time) AS time, avg(value) AS cpu_percent FROM measures GROUP BY
1), warnings AS (SELECT date_bin(interval '1 second', time) AS time, count(*) AS lines FROM log_entries GROUP BY 1)
SELECT load.time, load.cpu_percent, coalesce(warnings.lines, 0) AS lines FROM load LEFT JOIN warnings ON load.time =
warnings.time ORDER BY load.time
-- time measure measure[1]

WITH spans AS (SELECT * FROM otel_spans) SELECT span.name AS function, count(*) AS calls, sum(span.duration -
coalesce(inside.duration, 0)) / 1e6 AS own_ms, max(span.duration) AS longest FROM spans AS span LEFT JOIN (SELECT
trace_id, parent_span_id, sum(duration) AS duration FROM spans GROUP BY trace_id, parent_span_id) AS inside ON
inside.trace_id = span.trace_id AND inside.parent_span_id = span.span_id GROUP BY span.name
-- category measure[1] measure measure[ns]

SELECT span.name AS function, log.level, first_value(log.msg ORDER BY log.time) AS first_line, count(*) AS lines
FROM log_entries AS log JOIN otel_spans AS span ON property_get(log.properties, 'otel.trace_id') =
encode(span.trace_id, 'hex') GROUP BY span.name, log.level
-- category severity text measure[1]

WITH exemplar AS (SELECT name, unnest(jsonb_elements(exemplars)) AS one FROM histograms) SELECT e.name,
jsonb_as_f64(jsonb_get(e.one, 'value')) AS value, s.name AS operation, s.duration FROM exemplar AS e JOIN otel_spans
AS s ON encode(s.span_id, 'hex') = jsonb_as_string(jsonb_get(e.one, 'span_id'))
-- category measure category measure[ns]

SELECT date_trunc('minute', time) AS minute, exe, histogram_quantile(histogram_merge(histogram), 0.99) AS p99,
sum(histogram['sum']) / sum(histogram['count']) AS mean FROM histogram_increases GROUP BY 1, 2
-- time category measure measure

SELECT time, series, histogram['count'] AS n, histogram FROM histograms
-- time identifier measure[1] -

SELECT time, name, unit, increase, seconds, rate FROM counter_increases
-- time category category measure measure[s] measure

SELECT name, sum(increase) / sum(seconds) AS per_second FROM counter_increases GROUP BY name
-- category measure

SELECT s.name, l.msg FROM log_entries AS l JOIN otel_spans AS s ON property_get(l.properties, 'otel.span_id') =
encode(s.span_id, 'hex')
-- category text

SELECT key, jsonb_as_string(value) AS value FROM jsonb_each((SELECT properties FROM processes LIMIT 1))
-- category category

SELECT process_id, exe, start_time, last_update_time FROM processes
-- identifier category time time

SELECT exe, count(*) AS runs, max(start_time) AS latest FROM processes GROUP BY exe
-- category measure[1] time

SELECT stream_id, tags, format FROM streams
-- identifier - category

SELECT encode(trace_id, 'hex') AS trace, name, status, duration FROM otel_spans ORDER BY duration DESC LIMIT 10
-- identifier category category measure[ns]

SELECT name, approx_percentile_cont(duration, 0.99) / 1e6 AS p99_ms FROM otel_spans GROUP BY name
-- category measure

SELECT avg(CASE WHEN status = 'ERROR' THEN 1.0 ELSE 0.0 END) AS error_rate FROM otel_spans
-- measure

SELECT end_time - start_time AS took, extract(hour FROM start_time) AS hour FROM otel_spans
-- measure category

SELECT sum(level), avg(level), max(level), median(level) FROM log_entries
-- - - severity severity

SELECT level + 1 AS a, -level, abs(level), sum(level * 2) FROM log_entries GROUP BY level
-- - - severity -

SELECT sum(worst) FROM (SELECT max(level) AS worst, process_id FROM log_entries GROUP BY process_id)
-- -

SELECT sum(total) FROM (SELECT sum(level) AS total FROM log_entries GROUP BY target)
-- -

SELECT sum(series), min(series), sum(sqrt(level)) FROM histograms, log_entries
-- - identifier -

SELECT CAST(level AS BIGINT) AS l, TRY_CAST(value AS BIGINT), arrow_cast(level, 'Int8') FROM log_entries, measures
-- severity measure severity

SELECT last_block_end_ticks - start_ticks, tsc_frequency, sum(start_ticks) OVER () FROM processes
-- - measure[Hz] -

WITH x AS (SELECT time, value FROM measures) SELECT time, value - lag(value) OVER (ORDER BY time) AS d FROM x
-- time measure

SELECT level, row_number() OVER (ORDER BY l.time), lag(level) OVER (ORDER BY l.time), sum(level) OVER (), avg(value)
OVER (PARTITION BY name ORDER BY m.time ROWS 5 PRECEDING), first_value(msg) OVER (ORDER BY l.time) FROM (SELECT
time, level, msg FROM log_entries) l, (SELECT time AS t, name, value FROM measures) m(time, name, value)
-- severity measure[1] severity - measure text

SELECT m.time, m.value, l.level AS other, l.time AS t FROM log_entries l JOIN measures m ON l.process_id =
m.process_id
-- time measure severity time

SELECT "A".name, b.name FROM (SELECT level AS name FROM log_entries) "A", measures b
-- severity category

SELECT p.name, p.level FROM (SELECT target, level FROM log_entries) AS p(name, level)
-- category severity

SELECT time, value FROM measures UNION ALL SELECT start_time, CAST(duration AS DOUBLE) FROM otel_spans
-- time measure

SELECT time, value FROM measures UNION ALL SELECT time, level FROM log_entries
-- time -

SELECT time, level FROM log_entries UNION SELECT now(), NULL
-- time severity

SELECT level FROM log_entries EXCEPT SELECT level FROM log_entries WHERE level < 3
-- severity

SELECT DISTINCT ON (target) target, level, time FROM log_entries ORDER BY target, time DESC
-- category severity time

SELECT target, level, count(*) FROM log_entries GROUP BY ROLLUP (target, level)
-- category severity measure[1]

SELECT name FROM measures WHERE process_id IN (SELECT process_id FROM processes) AND value > (SELECT avg(value) FROM
measures)
-- category

SELECT duration + duration, duration / duration, duration * duration, duration / 2, sum(duration) / count(*) FROM
otel_spans GROUP BY duration
-- measure[ns] measure[1] measure measure measure[ns]

SELECT CASE WHEN kind = 'SERVER' THEN duration ELSE 0 END, greatest(duration, 5), duration - 7 FROM otel_spans
-- measure[ns] measure[ns] measure[ns]

SELECT lower(target), msg || 'x', left(process_id, 8), level <= 2 AS is_error, length(msg) FROM log_entries
-- category text identifier category measure[1]

WITH log_entries AS (SELECT value AS level FROM measures) SELECT level FROM log_entries
-- measure

WITH log_entries AS (SELECT level AS time FROM log_entries) SELECT time FROM log_entries
-- severity

SELECT level FROM (SELECT value AS level FROM measures, log_entries) AS log_entries
-- measure

SELECT level FROM measures AS log_entries(a, b, c, d, e, f, g, time, level, i, j, k, l, m)
-- category

SELECT id, count(*), time FROM orders GROUP BY id, time
-- - - -

SELECT o.id, l.level, avg(o.id), o.time FROM orders o, log_entries l GROUP BY 1, 2, 4
-- - severity measure -

SELECT 1 AS level
-- -

EXPLAIN SELECT level FROM log_entries
-- - -

SELECT date_trunc('hour', time_bin) AS hour, sum(count) AS total FROM log_stats GROUP BY 1
-- time measure[1]

SELECT name, quantile_from_histogram(make_histogram(0, 100000000, 50, duration), 0.5) / 1e6 AS p50_ms, count(*) FROM
process_spans('{PROCESS}', 'thread') GROUP BY name
-- category measure measure[1]

SELECT make_histogram(0, 100, 10, value), array_agg(value), array_agg(time) FROM measures
-- - - -

SELECT process_id, avg(payload_size), avg(nb_objects), count(*), count(DISTINCT stream_id) FROM blocks GROUP BY 1
-- identifier measure[By] measure[1] measure[1] measure[1]

SELECT time_bin, sum(CASE WHEN level <= 2 THEN count ELSE 0 END) AS n, sum(CASE WHEN level <= 2 THEN count ELSE 0 END)
* 100.0 / sum(count) AS percent FROM log_stats GROUP BY time_bin
-- time measure[1] measure

SELECT level, sum(count) * 100.0 / (SELECT sum(count) FROM log_stats) AS share FROM log_stats GROUP BY level
-- severity measure

WITH q AS (SELECT time, jsonb_parse(msg) AS j FROM log_entries WHERE target = 'audit') SELECT jsonb_as_string(jsonb_get(
j, 'client')) AS client, sum(jsonb_as_f64(jsonb_get(j, 'total_ms'))) AS ms, approx_percentile_cont(jsonb_as_f64(
jsonb_get(j, 'total_ms')), 0.95) AS p95, sum(jsonb_as_i64(jsonb_get(j, 'bytes'))) AS bytes FROM q GROUP BY client
-- category measure measure measure

SELECT b.name, depth, approx_percentile_cont(ms, 0.5), stddev(ms) FROM (SELECT b.name, b.depth, CAST((e.time - b.time)
AS BIGINT) / 1000000 AS ms FROM view_instance('async_events', '{PROCESS}') b LEFT JOIN view_instance('async_events',
'{PROCESS}') e ON b.span_id = e.span_id) AS b GROUP BY b.name, depth
-- category category measure measure

SELECT time, depth, repeat('  ', depth) || name AS indented FROM view_instance('async_events', '{PROCESS}')
-- time category category

SELECT date_bin('1 day', start_time) AS date, sum(arrow_cast(last_block_end_time - start_time, 'Int64') / 3.6e12) AS h
FROM processes GROUP BY date
-- time measure

SELECT CASE level WHEN 1 THEN 'FATAL' WHEN 2 THEN 'ERROR' ELSE NULL END AS name, count(*) AS count FROM log_entries
GROUP BY name
-- category measure[1]

SELECT CASE WHEN level <= 2 THEN msg END, CASE WHEN level <= 2 THEN 'bad' ELSE target END, CASE WHEN level <= 2 THEN
'bad' ELSE msg END FROM log_entries
-- text category text

SELECT 'logs' AS source, count(*) AS n FROM log_entries UNION ALL SELECT 'spans', count(*) FROM otel_spans
-- category measure[1]

SELECT 'none' AS msg FROM log_entries UNION ALL SELECT msg FROM log_entries
-- text

SELECT property_get(properties, 'env') AS env, count(CASE WHEN level <= 2 THEN 1 END) AS failed FROM log_entries GROUP
BY env
-- category measure[1]

SELECT properties_length(properties), bin_center(value, 50.0), unlerp(0.0, max(value) OVER (), value) FROM measures
-- measure[1] measure measure

SELECT CAST(time AS VARCHAR), CAST(value AS VARCHAR), CAST(l.level AS VARCHAR), arrow_cast(value, 'Utf8') FROM measures
JOIN (SELECT level FROM log_entries) AS l ON true
-- - - severity -

SELECT array_has(tags, 'cpu'), starts_with(format, 'otlp'), bool_or(format = 'a') FROM streams GROUP BY tags, format
-- category category category

SELECT starts_with(msg, 'a'), octet_length(msg), strpos(msg, 'a') FROM log_entries
-- category measure[By] -

SELECT approx_percentile_cont(0.95) WITHIN GROUP (ORDER BY duration), percentile_cont(0.5) WITHIN GROUP (ORDER BY
duration), median(duration) FROM otel_spans
-- measure[ns] measure[ns] measure[ns]

SELECT extract(epoch FROM end_time - start_time), extract(hour FROM start_time), max(end_time) - min(start_time) AS life
FROM otel_spans GROUP BY start_time, end_time
-- measure category measure

SELECT time - INTERVAL '1 hour' AS before, now() - time AS age, time::date AS day FROM log_entries
-- time measure time

SELECT time, exe, p.computer FROM log_entries JOIN processes p USING (process_id, exe)
-- time category category

SELECT coalesce(target, 'none'), coalesce(level, 0), nullif(level, 4) FROM log_entries
-- category severity severity

SELECT name, count(*) / 60.0 AS per_second, count(*) * 1.0 / sum(count(*)) OVER () AS share FROM measures GROUP BY name
-- category measure measure

SELECT log10(value), power(value, 2), value % 10, sqrt(duration) FROM measures, otel_spans
-- measure measure measure measure

SELECT first_value(level ORDER BY time), last_value(msg ORDER BY time), string_agg(msg, ', '), array_agg(msg) FROM
log_entries
-- severity text text -

SELECT histogram['max'] AS worst, histogram['sum'] / histogram['count'] AS mean, is_cumulative FROM histograms
-- measure measure category

SELECT (last - first)::float / nullif(last - first, 0) AS ratio FROM (SELECT min(value) AS first, max(value) AS last
FROM measures) AS b
-- measure

SELECT encode(span_id, 'hex') AS span, trace_id = X'00' AS same, kind, status_message FROM otel_spans
-- identifier category category text

SELECT time, level FROM log_entries INTERSECT SELECT time, level FROM log_entries
-- time severity

SELECT target, level, count(*) FROM log_entries GROUP BY GROUPING SETS ((target), (level))
-- category severity measure[1]

SELECT time, avg(value) OVER w AS mean, value - avg(value) OVER w AS off, count(*) OVER w AS n FROM measures WINDOW w AS
(PARTITION BY name ORDER BY time ROWS 5 PRECEDING)
-- time measure measure measure[1]

SELECT name AS span_id, span_id AS name FROM otel_spans
-- category identifier

SELECT m.name AS metric, date_bin(INTERVAL '5 minutes', m.time) AS time, sum(m.value) FILTER (WHERE l.level < 3) FROM
measures m JOIN log_entries l ON l.process_id = m.process_id GROUP BY 1, 2
-- category time measure

SELECT "streams.tags", "streams.format", "processes.computer", begin_time, end_ticks - begin_ticks FROM blocks
-- - category category time -
"""
STATEMENTS = [one.rsplit("\n-- ", 1) for one in EXAMPLES.replace("{PROCESS}", PROCESS).strip().split("\n\n")]


@pytest.mark.parametrize(("sql", "expected"), STATEMENTS)
def test_columns_have_the_roles_that_follow_from_the_statement(model, sql, expected):
    assert roles(model.plan(sql).schema) == expected


def test_raw_states_and_earlier_rows_have_the_same_roles(model):
    assert roles(model.plan("SELECT exe, start_time FROM __processes__partitions").schema) == "category time"
    assert roles(model.plan("SELECT name, duration FROM process_spans('" + PROCESS + "', 'both')").schema) == (
        "category measure[ns]"
    )


@pytest.mark.parametrize("sql", [sql for sql, expected in STATEMENTS if "EXPLAIN" not in sql])
def test_a_row_filter_changes_no_role(model, sql):
    filters = {
        "*": (),
        **dict.fromkeys(("log_entries", "measures", "histograms", "processes"), ("exe = 'web' AND length(exe) > 2",)),
    }
    filtered = model.seeing(filters).plan(sql)
    assert roles(filtered.schema) == roles(model.plan(sql).schema)


def test_values_of_parameters_change_no_role(model):
    sql = (
        "SELECT duration / $divisor AS d, histogram['count'] * $divisor AS n, CASE WHEN duration > $divisor THEN "
        "'slow' ELSE 'fast' END AS pace FROM otel_spans, histograms"
    )
    unbound = model.plan(sql).schema
    rows = pa.RecordBatch.from_pydict({"divisor": [1e3, 1e6]})
    assert roles(model.plan(sql, parameters=rows.slice(0, 1)).schema) == roles(unbound) == "measure measure category"
    assert roles(model.plan(sql, parameters=rows).schema) == "measure measure category"
    sql = "SELECT CASE WHEN level > 3 THEN $label ELSE 'b' END, CAST($label AS VARCHAR), level FROM log_entries"
    rows = pa.RecordBatch.from_pydict({"label": ["a"]})
    assert roles(model.plan(sql).schema) == "category category severity"
    assert roles(model.plan(sql, parameters=rows).schema) == "category category severity"


def test_batches_have_the_metadata_that_was_promised(tmp_path):
    entries = next(one for one in TABLES if one.name == "log_entries").schema
    row = {"level": 2, "msg": "m", "time": 0, "insert_time": 0, "properties": b"", "process_properties": b""}
    file = tmp_path / "1.parquet"
    pa.parquet.write_table(pa.Table.from_pylist([dict.fromkeys(entries.names, "x") | row], schema=entries), file)
    with asking(model_tables(data_files(file))) as asker:
        found = asker.table("SELECT time, level, target, max(msg) AS msg FROM log_entries GROUP BY 1, 2, 3")
    assert roles(found.schema) == "time severity category text"
    assert found.num_rows == 1
    assert found.to_pandas()["level"].tolist() == [2]


def test_a_statement_that_is_too_deep_has_no_roles(model):
    schema = model.plan("SELECT " + "+".join(["value"] * 500) + " AS v, level FROM measures, log_entries").schema
    assert roles(schema) == "- -"


def test_listed_columns_have_their_roles():
    for table in TABLES:
        for field in with_remarks(table.name, table.schema):
            role = find_role(field.name)
            assert (field.metadata.get(ROLE_KEY) or b"").decode() == (role.role if role else "")
    assert {find_role(field.name).role for table in TABLES for field in table.schema if find_role(field.name)} == {
        *ROLES
    }
