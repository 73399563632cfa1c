"""Statements over the data model's tables, each with the tables and columns that it reads."""

from typing import Final

PROCESS: Final = "00000000-0000-4000-8000-000000000001"
_COMMENT: Final = "/* " + "x" * 10_000 + " */"
_LOG_STATS: Final = {"log_entries": ["level", "process_id", "target", "time"]}

READS: Final = {
    "SELECT 1": {},
    "SELECT count(*) FROM log_entries": {"log_entries": []},
    "SELECT count(msg) FROM log_entries": {"log_entries": ["msg"]},
    "SELECT msg FROM log_entries WHERE level = 2": {"log_entries": ["level", "msg"]},
    "SELECT msg FROM log_entries ORDER BY time LIMIT 1": {"log_entries": ["msg", "time"]},
    f"{_COMMENT} SELECT msg FROM log_entries": {"log_entries": ["msg"]},
    f"SELECT {_COMMENT} exe FROM {_COMMENT} processes": {"processes": ["exe"]},
    "SELECT msg FROM (SELECT * FROM log_entries)": {"log_entries": ["msg"]},
    "WITH w AS (SELECT * FROM log_entries) SELECT target FROM w": {"log_entries": ["target"]},
    "WITH a AS (SELECT * FROM processes), b AS (SELECT exe AS n FROM a) SELECT max(n) FROM b": {"processes": ["exe"]},
    "WITH log_entries AS (SELECT exe AS msg FROM processes) SELECT msg FROM log_entries": {"processes": ["exe"]},
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT count(*) FROM r": {},
    "SELECT l.msg, p.username FROM log_entries l JOIN processes p ON l.process_id = p.process_id": {
        "log_entries": ["msg", "process_id"],
        "processes": ["process_id", "username"],
    },
    "SELECT l.msg FROM log_entries l LEFT JOIN processes p USING (process_id) WHERE p.exe = 'x'": {
        "log_entries": ["msg", "process_id"],
        "processes": ["exe", "process_id"],
    },
    "SELECT a.target FROM log_entries a JOIN log_entries b ON a.msg = b.msg": {"log_entries": ["msg", "target"]},
    "SELECT exe FROM processes WHERE process_id IN (SELECT process_id FROM log_entries WHERE level < 3)": {
        "log_entries": ["level", "process_id"],
        "processes": ["exe", "process_id"],
    },
    "SELECT exe FROM processes p WHERE EXISTS (SELECT 1 FROM log_entries l WHERE l.exe = p.exe)": {
        "log_entries": ["exe"],
        "processes": ["exe"],
    },
    "SELECT exe FROM processes p WHERE NOT EXISTS (SELECT * FROM log_entries l WHERE l.exe = p.username)": {
        "log_entries": ["exe"],
        "processes": ["exe", "username"],
    },
    "SELECT (SELECT max(msg) FROM log_entries) AS last, exe FROM processes": {
        "log_entries": ["msg"],
        "processes": ["exe"],
    },
    "SELECT exe FROM processes ORDER BY (SELECT count(target) FROM log_entries)": {
        "log_entries": ["target"],
        "processes": ["exe"],
    },
    "SELECT exe FROM processes GROUP BY exe HAVING count(*) > (SELECT count(level) FROM log_entries)": {
        "log_entries": ["level"],
        "processes": ["exe"],
    },
    "SELECT msg FROM log_entries UNION SELECT exe FROM processes": {"log_entries": ["msg"], "processes": ["exe"]},
    "SELECT exe FROM processes EXCEPT SELECT msg FROM log_entries": {"log_entries": ["msg"], "processes": ["exe"]},
    "SELECT target, count(*) FROM log_entries GROUP BY target HAVING max(level) > 2": {
        "log_entries": ["level", "target"]
    },
    "SELECT msg, row_number() OVER (PARTITION BY target ORDER BY time) FROM log_entries": {
        "log_entries": ["msg", "target", "time"]
    },
    "SELECT DISTINCT computer FROM processes": {"processes": ["computer"]},
    "SELECT CASE WHEN level > 3 THEN msg ELSE target END FROM log_entries": {"log_entries": ["level", "msg", "target"]},
    "SELECT property_get(properties, 'user') FROM log_entries": {"log_entries": ["properties"]},
    "SELECT count(*) FILTER (WHERE msg LIKE '%secret%') FROM log_entries": {"log_entries": ["msg"]},
    'SELECT "MSG" FROM (SELECT msg AS "MSG", level FROM log_entries)': {"log_entries": ["msg"]},
    "SELECT m FROM log_entries AS t(a, b, c, d, e, f, g, h, i, j, m, k, l)": {"log_entries": ["msg"]},
    "SELECT * FROM log_stats": {"log_stats": ["count", "level", "process_id", "target", "time_bin"], **_LOG_STATS},
    "SELECT sum(count) FROM log_stats": {"log_stats": ["count"], **_LOG_STATS},
    f"SELECT msg FROM view_instance('log_entries', '{PROCESS}')": {"log_entries": ["msg", "process_id"]},
    f"SELECT count(*) FROM view_instance('log_entries', '{PROCESS}') v JOIN processes p ON v.exe = p.exe": {
        "log_entries": ["exe", "process_id"],
        "processes": ["exe"],
    },
    "SELECT exe FROM view_instance('processes', 'global')": {"processes": ["exe"]},
    f"SELECT count(*) FROM view_instance('thread_spans', '{PROCESS}')": {"thread_spans": []},
    f"SELECT name FROM process_spans('{PROCESS}', 'both')": {"process_spans()": ["name"]},
    "SELECT key FROM jsonb_each((SELECT properties FROM log_entries LIMIT 1))": {"log_entries": ["properties"]},
    "SELECT view_set_name FROM list_view_sets()": {"list_view_sets()": []},
    "SELECT count(*) FROM list_partitions() WHERE view_set_name = 'log_entries'": {"list_partitions()": []},
    "SELECT r.sql FROM running_queries() r, log_entries l WHERE l.msg = r.sql": {
        "log_entries": ["msg"],
        "running_queries()": [],
    },
    "SHOW TABLES": {
        "information_schema.tables": ["table_catalog", "table_name", "table_schema", "table_type"],
    },
    "SELECT column_name FROM information_schema.columns WHERE table_name = 'processes'": {
        "information_schema.columns": ["column_name", "table_name"]
    },
    "DESCRIBE log_entries": {},
    "EXPLAIN SELECT msg FROM log_entries": {"log_entries": ["msg"]},
    "VALUES ((SELECT max(msg) FROM log_entries))": {"log_entries": ["*"]},
    "SELECT msg FROM log_entries WHERE target = 'x\nTableScan: processes projection=[exe]'": {
        "log_entries": ["msg", "target"]
    },
}
