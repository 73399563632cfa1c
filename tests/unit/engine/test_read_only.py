"""Nothing can be changed, set, or read that is not a visible table."""

import pytest

from micromegas_jupyter.errors import InvalidStatement, QueryError, StatementRefused

CHANGING = [
    "CREATE TABLE t AS SELECT 1",
    "CREATE TABLE t (x INT)",
    "CREATE OR REPLACE TABLE t AS SELECT 1",
    "CREATE TABLE IF NOT EXISTS t AS VALUES (1)",
    "CREATE TEMPORARY TABLE t (x INT)",
    "CREATE VIEW v AS SELECT 1",
    "CREATE OR REPLACE VIEW v AS SELECT * FROM log_entries",
    "CREATE MATERIALIZED VIEW v AS SELECT 1",
    "CREATE SCHEMA s",
    "CREATE DATABASE d",
    "CREATE INDEX i ON log_entries (time)",
    "CREATE FUNCTION f(DOUBLE) RETURNS DOUBLE RETURN $1 + 1",
    "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '/etc/'",
    "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
    "CREATE EXTERNAL TABLE t (x INT) STORED AS CSV LOCATION 'http://127.0.0.1:9/x.csv'",
    "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 's3://bucket/x'",
    "CREATE UNBOUNDED EXTERNAL TABLE t (x INT) STORED AS CSV LOCATION '/tmp/fifo'",
    "CREATE ROLE r",
    "CREATE SEQUENCE s",
    "DROP TABLE log_entries",
    "DROP TABLE IF EXISTS nothing",
    "DROP VIEW log_entries",
    "DROP SCHEMA public CASCADE",
    "DROP FUNCTION abs",
    "ALTER TABLE log_entries ADD COLUMN x INT",
    "ALTER TABLE log_entries RENAME TO other",
    "TRUNCATE TABLE log_entries",
    "INSERT INTO log_entries SELECT * FROM log_entries",
    "INSERT INTO measures VALUES ('p', 'e', now(), 1, 'm', NULL)",
    "INSERT OVERWRITE log_entries SELECT * FROM log_entries",
    "UPDATE log_entries SET level = 1",
    "UPDATE log_entries SET level = 1 WHERE level = 2",
    "DELETE FROM log_entries",
    "DELETE FROM log_entries WHERE level = 1",
    "MERGE INTO log_entries USING measures ON 1 = 1 WHEN MATCHED THEN DELETE",
    "COPY log_entries TO '/tmp/stolen.parquet'",
    "COPY log_entries TO '/tmp/stolen'",
    "COPY (SELECT * FROM log_entries) TO '/tmp/stolen.csv' STORED AS CSV",
    "COPY (SELECT 1) TO 's3://bucket/stolen.json'",
    "COPY log_entries TO '/tmp/stolen' STORED AS PARQUET PARTITIONED BY (level)",
    "COPY log_entries FROM '/etc/passwd'",
    "SET datafusion.execution.batch_size = 1",
    "SET datafusion.runtime.memory_limit = '100G'",
    "SET datafusion.runtime.temp_directory = '/tmp'",
    "SET TIME ZONE = 'UTC'",
    "SET x TO 1",
    "RESET datafusion.runtime.memory_limit",
    "BEGIN",
    "START TRANSACTION",
    "COMMIT",
    "ROLLBACK",
    "PREPARE p AS SELECT 1",
    "PREPARE p(INT) AS SELECT $1",
    "EXECUTE p(1)",
    "DEALLOCATE p",
    "GRANT SELECT ON log_entries TO ann",
    "REVOKE SELECT ON log_entries FROM ann",
    "USE public",
    "ANALYZE TABLE log_entries",
    "CALL f()",
    "EXPLAIN CREATE TABLE t AS SELECT 1",
    "EXPLAIN INSERT INTO log_entries SELECT * FROM log_entries",
    "EXPLAIN COPY log_entries TO '/tmp/stolen.csv'",
    "EXPLAIN SET datafusion.execution.batch_size = 1",
    "EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1",
    "EXPLAIN ANALYZE INSERT INTO log_entries SELECT * FROM log_entries",
    "EXPLAIN ANALYZE COPY log_entries TO '/tmp/stolen.csv'",
    "EXPLAIN ANALYZE VERBOSE DELETE FROM log_entries",
    "/* harmless */ DROP TABLE log_entries",
    "-- SELECT\nDROP TABLE log_entries",
    "  ;DROP TABLE log_entries",
    "(DELETE FROM log_entries)",
    "SHOW ALL",
    "SHOW datafusion.runtime.temp_directory",
    "SHOW TIME ZONE",
    "SHOW ALL VERBOSE",
    "SELECT * FROM information_schema.df_settings",
    "SELECT * FROM datafusion.information_schema.df_settings AS ordinary",
    'SELECT * FROM "information_schema"."DF_SETTINGS"',
    "SELECT (SELECT max(value) FROM information_schema.df_settings)",
    "SELECT 1 WHERE EXISTS (SELECT 1 FROM information_schema.df_settings WHERE value LIKE '/%')",
    "WITH s AS (SELECT * FROM information_schema.df_settings) SELECT count(*) FROM s",
    "EXPLAIN SELECT * FROM information_schema.df_settings",
    "SELECT 1; DROP TABLE log_entries",
    "SELECT 1; SELECT 2",
]

# Statements of other products that write, and that DataFusion does not get as far as planning.
FOREIGN = [
    "WITH gone AS (DELETE FROM log_entries RETURNING *) SELECT * FROM gone",
    "SELECT * INTO stolen FROM log_entries",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM '/tmp/x.parquet'",
    'SELECT * FROM "s3://bucket/x.parquet"',
    "SELECT * FROM read_parquet('/tmp/x.parquet')",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM parquet_metadata('/tmp/x.parquet')",
    "SELECT * FROM metadata_cache()",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT load_extension('x')",
]

# Joins, sub-queries, windows and set operations are in `statements.REVEALING`.
READING = [
    "select 1;",
    "\n   SELECT 1 ;  \n",
    "SELECT 1;;",
    "SELECT 1 -- why",
    "/* why */ SELECT 1",
    "VALUES (1, 'a'), (2, 'b')",
    "SELECT count(*) FROM log_entries WHERE level <= 3 AND msg LIKE '%error%'",
    "SELECT date_bin(INTERVAL '1 minute', time) AS bin, max(level) FROM log_entries GROUP BY bin ORDER BY bin",
    "SELECT l.msg, p.start_time FROM log_entries l JOIN processes p ON l.process_id = p.process_id",
    "WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r WHERE i < 5) SELECT * FROM r",
    "SELECT level FROM log_entries INTERSECT SELECT 4",
    "SELECT 'DROP TABLE log_entries; --' AS harmless",
    'SELECT level AS "DELETE FROM x" FROM log_entries',
    "SELECT 'df_settings'",
    "SELECT approx_percentile_cont(level, 0.5) FROM log_entries",
    "SELECT array_has(make_array(1, 2), 1), arrow_typeof(now())",
    "SELECT * FROM generate_series(1, 3)",
    "SHOW TABLES",
    "SHOW COLUMNS FROM log_entries",
    "SHOW FUNCTIONS LIKE 'date_bin'",
    "DESCRIBE log_entries",
    "SELECT table_name FROM information_schema.tables",
    "SELECT column_name FROM information_schema.columns WHERE table_name = 'measures'",
    "EXPLAIN SELECT * FROM log_entries",
    "EXPLAIN ANALYZE SELECT count(*) FROM log_entries",
    "EXPLAIN VERBOSE SELECT 1",
    "EXPLAIN FORMAT TREE SELECT 1",
]


@pytest.mark.parametrize("sql", CHANGING)
def test_a_statement_that_changes_or_reveals_settings_is_refused_and_leaves_nothing(ask, sql):
    with pytest.raises(StatementRefused) as caught:
        ask.rows(sql)

    assert "/" not in caught.value.what
    assert not any(kept.session.catalog().schema().table_names() for kept in ask.engine._sessions.free)


@pytest.mark.parametrize("sql", FOREIGN)
def test_a_foreign_way_to_files_or_writes_fails(ask, sql):
    with pytest.raises(QueryError):
        ask.rows(sql)


@pytest.mark.parametrize("sql", READING)
def test_a_reading_statement_is_accepted(ask, sql):
    assert ask.table(sql).schema.names


def test_the_function_that_names_the_file_of_a_row_does_not_exist(ask):
    with pytest.raises(InvalidStatement):
        ask.table("SELECT input_file_name() FROM log_entries")
