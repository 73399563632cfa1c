"""What upstream's documentation does with SQL: statements that run here, and reasons why others don't.

The statements are this project's own. Each uses the functions, columns, and syntax of one place of upstream's pages,
which are no part of this repository. `python -m tests.integration.clients.upstream_statements FOLDER` runs every
statement in a checkout of upstream and lists those that fail without a reason below.
"""

import re
import sys
import tempfile
from pathlib import Path

PROCESS = "11111111-1111-4111-8111-111111111111"
STREAM = "22222222-2222-4222-8222-222222222222"

#: By upstream's page (0.30 to 0.32); for an administrator.
RUNS = {
    "query-guide/index, quick-start, performance": """
SELECT * FROM log_entries LIMIT 3;
SELECT * FROM log_entries WHERE level <= 3 AND time >= now() - INTERVAL '1 hour' LIMIT 3;
SELECT time, process_id, level, target, msg FROM log_entries WHERE process_id = '{P}' ORDER BY time DESC;
SELECT * FROM view_instance('log_entries', '{P}');
SHOW TABLES
""",
    "query-guide/query-patterns": """
SELECT date_trunc('hour', time) AS hour, count(*) AS n FROM log_entries WHERE level <= 2 GROUP BY date_trunc('hour',
time) ORDER BY hour;
SELECT name, avg(duration) / 1000000.0 AS mean_ms, max(duration) / 1000000.0 AS max_ms FROM view_instance(
'thread_spans', '{S}') WHERE duration > 10000000 GROUP BY name ORDER BY mean_ms DESC LIMIT 3;
SELECT date_trunc('minute', time) AS minute, name, avg(value), unit FROM measures WHERE name IN ('a', 'b') GROUP BY
minute, name, unit;
SELECT p.name, count(*) AS children, avg(CAST((e.time - b.time) AS BIGINT) / 1000000) AS ms FROM view_instance(
'async_events', '{P}') p JOIN view_instance('async_events', '{P}') b ON p.span_id = b.parent_span_id AND b.event_type
= 'begin' JOIN view_instance('async_events', '{P}') e ON b.span_id = e.span_id AND e.event_type = 'end' GROUP BY
p.name HAVING count(*) > 5;
SELECT time, event_type, depth, repeat('  ', depth) || name AS indented FROM view_instance('async_events', '{P}')
""",
    "query-guide/schema-reference": """
SELECT process_id, exe, username, computer, start_time FROM processes WHERE exe LIKE '%service%';
SELECT s.stream_id, s.tags, s.properties, p.exe FROM streams s JOIN processes p ON s.process_id = p.process_id;
SELECT process_id, avg(payload_size), avg(nb_objects), count(*) FROM blocks WHERE insert_time >= now() - INTERVAL '1
hour' GROUP BY process_id;
SELECT time_bin, sum(count) AS lines, sum(CASE WHEN level <= 2 THEN count ELSE 0 END) * 100.0 / sum(count) AS failed
FROM log_stats GROUP BY time_bin HAVING sum(count) > 100 ORDER BY time_bin, failed DESC;
SELECT level, sum(count) * 100.0 / (SELECT sum(count) FROM log_stats) AS share FROM log_stats GROUP BY level;
SELECT target, count(DISTINCT time_bin) AS minutes FROM log_stats GROUP BY target ORDER BY 2 DESC;
SELECT depth, name, duration FROM view_instance('thread_spans', '{S}') WHERE parent = 42 ORDER BY begin;
SELECT span_id AS id, parent_span_id AS parent, depth, begin_bits AS begin, end_bits AS end, kind, connection_name,
is_outgoing FROM view_instance('net_spans', '{P}') WHERE is_outgoing = false;
SELECT name, sum(bit_size) AS bits FROM view_instance('net_spans', '{P}') WHERE kind = 'property' GROUP BY name;
SELECT name, kind, status, status_message, encode(parent_span_id, 'hex') AS parent, jsonb_as_string(jsonb_get(
properties, 'otel.scope.name')) AS library FROM view_instance('otel_spans', '{P}') WHERE trace_id = decode(
'0123456789abcdef0123456789abcdef', 'hex') ORDER BY start_time;
SELECT time, name, format, payload_size, data FROM view_instance('images', '{P}') ORDER BY time DESC;
SELECT m.time, m.value, s.tags FROM measures m JOIN streams s ON m.stream_id = s.stream_id
""",
    "query-guide/functions-reference: tables": """
SELECT stream_id, thread_name, name, begin, "end", depth FROM process_spans('{P}', 'both') ORDER BY thread_name, begin;
SELECT chunk_id, chunk_data FROM perfetto_trace_chunks('{P}', 'both', now() - INTERVAL '1 hour', now()) ORDER BY
chunk_id;
SELECT key, jsonb_format_json(value) FROM jsonb_each((SELECT properties FROM processes WHERE process_id = '{P}'));
SELECT key AS index, jsonb_format_json(value) AS element FROM jsonb_each((SELECT jsonb_parse('[10, 20]')));
SELECT jsonb_as_string(jsonb_get(value, 'name')) FROM jsonb_array_elements(jsonb_parse('[{"name": "a"}]'));
SELECT bin_center, count FROM expand_histogram((SELECT make_histogram(0.0, 100.0, 100, value) FROM measures))
""",
    "query-guide/functions-reference: scalars and aggregates": """
SELECT jsonb_path_query_first(properties, '$.tags[0]'), jsonb_path_query(properties, '$.a[*] ? (@.b > 5)') FROM
processes;
SELECT jsonb_as_f64(jsonb_get(jsonb_parse(msg), 'cpu')), jsonb_as_i64(jsonb_get(jsonb_parse(msg), 'port')) FROM
log_entries WHERE msg LIKE '%{%' AND jsonb_parse(msg) IS NOT NULL;
SELECT jsonb_object_keys(properties), jsonb_array_length(properties) FROM processes LIMIT 5;
SELECT jsonb_format_json(properties_to_jsonb(properties)), property_get(properties_to_jsonb(properties), 'env') FROM
log_entries WHERE property_get(process_properties, 'thread-name') LIKE '%worker%';
SELECT properties_length(properties), properties_length(properties_to_dict(properties)), array_length(
properties_to_array(properties_to_dict(properties))), properties_to_jsonb(properties_to_dict(properties)) FROM measures;
SELECT property_get(properties, 'a') AS a, count(CASE WHEN level <= 2 THEN 1 END) AS failed FROM log_entries GROUP BY a;
WITH h AS (SELECT name, make_histogram(0, 100000000, 50, duration) AS h FROM process_spans('{P}', 'thread') GROUP BY
name) SELECT quantile_from_histogram(sum_histograms(h), 0.95) / 1e6, variance_from_histogram(sum_histograms(h)),
count_from_histogram(sum_histograms(h)), sum_from_histogram(sum_histograms(h)) FROM h;
SELECT name, stddev(duration) / 1000000.0 FROM view_instance('thread_spans', '{S}') GROUP BY name;
SELECT bin_center(value, 50.0) AS x, lerp(0.5, 1.0, unlerp(0.0, max(value) OVER (), value)) AS t FROM measures
""",
    "query-guide/async-performance-analysis": """
WITH spans AS (SELECT b.name, b.depth, b.time AS start_time, CAST((e.time - b.time) AS BIGINT) / 1000000 AS ms FROM
(SELECT * FROM view_instance('async_events', '{P}') WHERE event_type = 'begin') b LEFT JOIN (SELECT * FROM
view_instance('async_events', '{P}') WHERE event_type = 'end') e ON b.span_id = e.span_id WHERE e.span_id IS NOT NULL)
SELECT 'depth' AS kind, CAST(depth AS VARCHAR) AS name, count(*) AS n, approx_percentile_cont(ms, 0.95) AS p95 FROM
spans GROUP BY depth UNION ALL SELECT 'name' AS kind, name, count(*) AS n, NULL AS p95 FROM spans GROUP BY name;
SELECT bucket, max(n) AS peak FROM (SELECT date_trunc('minute', time) AS bucket, count(*) AS n FROM view_instance(
'async_events', '{P}') GROUP BY date_trunc('minute', time)) GROUP BY bucket
""",
    "query-guide/query-audit-log, admin/control-plane-audit-log, admin/flight-sql": """
WITH q AS (SELECT time, jsonb_parse(msg) AS j FROM log_entries WHERE target = 'audit') SELECT jsonb_as_string(
jsonb_get(j, 'client')) AS client, count(*) AS n, sum(jsonb_as_f64(jsonb_get(j, 'total_ms'))) AS total_ms,
approx_percentile_cont(jsonb_as_f64(jsonb_get(j, 'total_ms')), 0.95) AS p95_ms, min(jsonb_as_string(jsonb_get(j,
'sql'))) AS example FROM q WHERE jsonb_as_string(jsonb_get(j, 'status')) <> 'ok' GROUP BY client ORDER BY n DESC;
SELECT date_bin(INTERVAL '1 minute', time) AS minute, property_get(properties, 'rule_id') AS rule, sum(value) AS denied
FROM measures WHERE name = 'query_denied' GROUP BY minute, rule ORDER BY minute
""",
    "admin/maintenance, redis-exporter, telemetry-sink-tuning, blog": """
WITH b AS (SELECT min(value) FILTER (WHERE name = 'hit') AS first, max(value) FILTER (WHERE name = 'hit') AS last FROM
measures) SELECT (last - first)::float / nullif(last - first, 0) AS ratio FROM b;
SELECT property_get(properties, 'table') AS t, max(value) FROM measures GROUP BY 1 HAVING max(value) = 0 ORDER BY 1;
SELECT date_bin('1 day', start_time) AS date, sum(arrow_cast(last_block_end_time - start_time, 'Int64') / 3.6e12) AS h
FROM processes GROUP BY date ORDER BY date
""",
    "admin/functions-reference": """
SELECT view_set_name, current_schema_hash, has_view_maker FROM list_view_sets() WHERE current_schema_hash = '[4]';
SELECT file_path, file_size, file_schema_hash FROM list_partitions() WHERE view_set_name = 'log_entries';
SELECT vs.view_set_name, count(DISTINCT p.file_schema_hash) AS hashes, sum(CASE WHEN p.file_schema_hash !=
vs.current_schema_hash THEN p.file_size ELSE 0 END) AS size FROM list_view_sets() vs LEFT JOIN list_partitions() p ON
vs.view_set_name = p.view_set_name GROUP BY vs.view_set_name HAVING size > 0 ORDER BY size DESC;
SELECT * FROM materialize_partitions('blocks', '2024-01-01T00:00:00Z', '2024-01-02T00:00:00Z', 86400);
SELECT * FROM regenerate_partitions('blocks', '2024-01-01T00:00:00Z', '2024-01-02T00:00:00Z', 86400);
SELECT * FROM list_query_denials();
CREATE OR REPLACE MATERIALIZED VIEW levels WITH (extract_query = $$SELECT date_bin(INTERVAL '1 minute', time) AS
time_bin, level, count(*) AS n FROM log_entries WHERE insert_time >= '{begin}' AND insert_time < '{end}' GROUP BY 1, 2
$$, count_src_query = $$SELECT sum(nb_objects) AS count FROM blocks WHERE insert_time >= '{begin}' AND insert_time <
'{end}'$$, merge_partitions_query = $$SELECT time_bin, level, sum(n) AS n FROM {source} GROUP BY 1, 2$$, update_group =
4000, time_column = 'time_bin');
SELECT view_set_name FROM list_view_set_definitions();
DROP MATERIALIZED VIEW levels;
DROP MATERIALIZED VIEW IF EXISTS levels;
SELECT * FROM deny_queries('sql LIKE ''%no such text%'' OR client_ip = ''192.0.2.1''', 'too many');
SELECT remove_query_denial('9f2c41ab-73de-4015-9d2e-000000000000') AS result
""",
    "grafana/usage, web-app/notebooks": """
SELECT date_bin('5 minutes', time) AS time, name, avg(value), max(value) FROM measures WHERE name LIKE 'cpu.%' GROUP
BY 1, 2 ORDER BY 1;
SELECT time, msg FROM log_entries WHERE time >= '2026-10-30 10:00:00' AND time <= '2026-10-30 11:00:00';
SELECT time_bin AS time, sum(CASE WHEN level <= 2 THEN count ELSE 0 END) AS n FROM log_stats GROUP BY time_bin;
SELECT CASE level WHEN 1 THEN 'FATAL' ELSE 'other' END AS name, count(*) AS count FROM log_entries GROUP BY name;
SELECT arrow_cast(stream_id, 'Utf8') AS id, concat(arrow_cast(property_get("streams.properties", 'thread-name'), 'Utf8'
), '-') AS name, begin_time AS begin, end_time AS end FROM blocks WHERE array_has("streams.tags", 'cpu') ORDER BY name
""",
    "otlp, unreal, blender": """
SELECT process_id FROM processes WHERE jsonb_as_string(jsonb_get(properties, 'otel.resource.service.name')) = 'web';
SELECT name, value FROM measures WHERE name LIKE 'a.com/b\\_%' ESCAPE '\\';
SELECT process_id, tags FROM streams WHERE array_has(tags, 'net') ORDER BY insert_time DESC LIMIT 5;
SELECT block_id, "processes.exe", begin_time, nb_objects, "streams.tags", "streams.format" FROM blocks ORDER BY
end_time DESC LIMIT 5
""",
}

#: What fails here: text of the statement, an example for an administrator, and words of its error. docs/migration.md,
#: "What of Micromegas isn't here", has the reasons.
ABSENT = {
    r"parse_block": (f"SELECT * FROM parse_block('{PROCESS}')", "Only rows are kept here"),
    r"get_payload": ("SELECT get_payload(process_id, stream_id, block_id) FROM blocks", "Only rows are kept here"),
    r"retire_partitions": (
        "SELECT * FROM retire_partitions('log_entries', 'global', '2024-01-01', '2024-01-02')",
        "tables delete",
    ),
    r"retire_partition_by_metadata": (
        "SELECT retire_partition_by_metadata('log_entries', 'global', TIMESTAMP '2024-01-01', TIMESTAMP '2024-01-01')",
        "tables delete",
    ),
    r"retire_partition_by_file": ("SELECT retire_partition_by_file('a.parquet')", "tables delete"),
    r"rgba|lerp_color|color_scale": ("SELECT color_scale('turbo', 0.5, 1.0)", "Only Micromegas's web app"),
    r"list_audience_grants": ("SELECT * FROM list_audience_grants()", "Roles"),
    r"\baudience\b": ("SELECT max(audience) FROM log_entries", "Roles"),
    r"FROM images": ("SELECT exe, count(*) FROM images GROUP BY exe", "view_instance"),
    r"array_length\(properties\)": ("SELECT array_length(properties) FROM measures", "array_length does not take"),
    r"begin, end\b": (f"SELECT name, begin, end FROM process_spans('{PROCESS}', 'both')", "keyword"),
    r"FLOAT64": ("SELECT CAST(value AS FLOAT64) FROM measures", "no type named FLOAT64"),
}
#: Statements of the pages that are no examples to run: about the reader's own tables, or with a part to fill in.
_READERS_OWN = re.compile(
    r"performance_\w+|cpu_usage_per_process_per_minute|\b(?:my_)?events\b|FROM (?:metrics|density_grid|heatmap|scaled|"
    r"cells|frame_metrics|raw_metrics)\b|sum\(fatal\)|msg_jsonb|\bdata, '\$|\{\w*\}|jsonb_subquery|jsonb_array\)|"
    r"histogram_subquery|_partitions\(\)|relationships\("
)
_STATEMENT = re.compile(r"\s*(?:SELECT|WITH|SHOW|(?:CREATE|DROP).* MATERIALIZED)\b", re.IGNORECASE)
_FILLED = {
    r"(view_instance\(\s*'\w+'\s*,\s*)(?:'[^']*'|process_id => \$process_id)": rf"\g<1>'{PROCESS}'",
    r"((?:process_spans|perfetto_trace_chunks|parse_block)\(\s*)(?:'[^']*'|process_id|block_id)": rf"\g<1>'{PROCESS}'",
    r"span_types, start_time, end_time": "'both', now() - INTERVAL '1 hour', now()",
    r"\$bin_interval": "1 minute",
    r"\$order_by": "exe",
    r"\$processes": "'a'",
    r"\$__time(?:From|To)\(\)": "'2026-10-30 10:00:00'",
    r"\$__timeFilter\(time\)": "time >= '2026-10-30 10:00:00'",
    r"= \$level": "= 4",
}


def split(text):
    """Return the statements of a block: a semicolon outside of quotes, or an empty line, ends one."""
    bare = re.sub(r"--[^\n]*", "", text)
    parts = re.split(r";(?=(?:[^']*'[^']*')*[^']*$)|\n\s*\n(?=\s*(?:SELECT|WITH)\b)", bare)
    return [part.strip() for part in parts if _STATEMENT.match(part)]


def find_statements(folder):
    """Return each statement of the pages in a checkout of upstream, with its page."""
    pages = [page for part in ("mkdocs/docs", "doc", "claude-plugin") for page in (folder / part).rglob("*.md")]
    for page in sorted(pages):
        for fence in re.finditer(
            r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE
        ):
            body = fence[3]
            found = re.findall(r'"""(.*?)"""', body, re.DOTALL) if fence[2] == "python" else [body]
            if "micromegas-query" in body:
                found = re.findall(r'micromegas-query\s+"((?:[^"\\]|\\.)*)"', body)
            for statement in (one for text in found for one in split(text)):
                yield page.relative_to(folder), statement


def main(folder):
    """Run the statements of a checkout as an administrator, and print those that fail for no known reason."""
    from micromegas_jupyter.client.flight_client import FlightSQLClient
    from micromegas_jupyter.errors import MicromegasError
    from tests.fakes.telemetry_rows import NOON
    from tests.integration.clients.serving import running_client_server
    from tests.integration.clients.test_upstream_statements import Bearer

    counts = {"ran": 0, "listed": 0, "reader's own": 0, "failed": 0}
    with tempfile.TemporaryDirectory() as temporary, running_client_server(Path(temporary)) as server:
        client = FlightSQLClient(server.uri, auth_provider=Bearer(server.tokens["alice"]))
        for page, statement in find_statements(Path(folder)):
            sql = statement
            for pattern, filled in _FILLED.items():
                sql = re.sub(pattern, filled, sql)
            try:
                client.query(sql, NOON, NOON)
                result = "ran"
            except MicromegasError as error:
                is_listed = any(re.search(text, sql) for text in ABSENT)
                result = "listed" if is_listed else "reader's own" if _READERS_OWN.search(sql) else "failed"
                if result == "failed":
                    print(f"{page}\n{sql}\n  {error}\n")
            counts[result] += 1
    print(counts)


if __name__ == "__main__":
    main(sys.argv[1])
