"""Tests of `client.repeating`: a write is never sent a second time."""

from __future__ import annotations

import pytest

from micromegas_jupyter.client.repeating import may_be_repeated


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "  -- a note\n SELECT count(*) FROM log_entries WHERE msg LIKE '%update%' AND level < 3;\n",
        "WITH recent AS (SELECT * FROM log_entries) SELECT * FROM recent",
        "EXPLAIN SELECT 1",
        "SELECT delete_count, created, set_size, update_time FROM t",
        "SELECT * FROM list_partitions()",
        "",
        "--",
        "/* without an end",
        "/* a */ SELECT 1 /* b */",
    ],
)
def test_a_statement_that_reads_may_be_repeated(sql):
    assert may_be_repeated(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES (1)",
        "insert\n into t select 1",
        "-- a note\n/* and one */ DELETE FROM t",
        "UPDATE t SET a = 1",
        "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
        "CREATE TABLE t AS SELECT 1",
        "  drop table t",
        "ALTER TABLE t ADD COLUMN a INT",
        "TRUNCATE t",
        "COPY t TO 'file'",
        "SET a = 1",
        "SELECT 1; DROP TABLE t",
        "SELECT time, msg FROM retire_partitions('a', 'b', 'c', 'd')",
        "SELECT * FROM \"retire_partitions\" ('a')",
        "SELECT retire_partition_by_metadata('a', 'b', 'c', 'd')",
        "SELECT * FROM Materialize_Partitions('v', 'a', 'b', 60)",
        "SELECT * FROM regenerate_partitions('v', 'a', 'b', 60)",
        "SELECT * FROM deny_queries('sql', 'reason')",
        "SELECT retire_partitions/**/(1)",
        "SELECT retire_partitions -- now\n (1)",
        "INSERT/* a */INTO t SELECT 1",
        "SELECT '--', retire_partitions(1)",
        "EXECUTE p",
        "DO $$ x $$",
    ],
)
def test_a_statement_that_writes_may_not_be_repeated(sql):
    assert not may_be_repeated(sql)
