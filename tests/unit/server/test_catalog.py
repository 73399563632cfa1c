"""The database describes itself in the schemas that Flight SQL asks for, as the engine has it."""

import fnmatch

import pyarrow as pa
import pytest
from datafusion import SessionContext

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.flightsql.commands import MetadataQuery, messages
from micromegas_jupyter.server.catalog import ServerFacts, build_metadata, build_sql_info, matches_pattern


def _answer(message):
    command = MetadataQuery(name=message.DESCRIPTOR.name, message=message)
    return build_metadata(command, [], ServerFacts()).to_pylist()


def _types(data_type=None):
    return _answer(messages.CommandGetXdbcTypeInfo(data_type=data_type))


def _facts(*info_ids, facts=None):
    batch = build_sql_info(info_ids, facts or ServerFacts(prepared_idle_seconds=600))
    batch.validate(full=True)
    return {row["info_name"]: row["value"] for row in batch.to_pylist()}


@pytest.mark.parametrize(
    ("text", "pattern", "expected"),
    [
        ("logXentries", "log_entries", True), ("log_entries", "log", False), ("axb", "a*b", False),
        ("a[b]", "a[b]", True), ("", "%", True), ("LOG", "log", False), ("logXentries", "log\\_entries", False),
        ("100%", "100\\%", True), ("a\\b", "a\\\\b", True), ("a\\", "a\\", True),
    ],
)  # fmt: skip
def test_patterns_know_percent_underscore_and_backslash_only(text, pattern, expected):
    assert matches_pattern(text, pattern) is expected


@pytest.mark.timeout(60)
def test_a_hostile_pattern_neither_backtracks_endlessly_nor_costs_time_nor_stays():
    kept = fnmatch._compile_pattern.cache_info().currsize
    assert not matches_pattern("a" * 200, "%a" * 100 + "b")
    assert matches_pattern("%" * 256, "\\%" * 256)
    with pytest.raises(UsageError):
        matches_pattern("a", "%a" * 257)
    assert fnmatch._compile_pattern.cache_info().currsize == kept  # it would keep 32,768 of them


@pytest.fixture(scope="module")
def engine():
    return SessionContext()


class TestSqlInfo:
    def test_the_facts_of_a_server_are_what_it_does(self):
        assert _facts(3, 4, 5, 8, 9, 10, 100) == {3: True, 4: True, 5: False, 8: 0, 9: True, 10: False, 100: 600_000}
        assert _facts(3, 10, facts=ServerFacts(takes_rows=True)) == {3: False, 10: True}
        assert _facts(100, facts=ServerFacts(prepared_idle_seconds=1e9)) == {100: 2**31 - 1}
        assert _facts(0, 99_999) == {0: "micromegas_jupyter"}


class TestTypeInfo:
    def test_every_type_can_stand_in_a_cast_and_they_come_in_order(self, engine):
        rows = _types()

        for row in rows:
            assert engine.sql(f"SELECT CAST(NULL AS {row['type_name']}) AS x").schema().field(0).type != pa.null()
        keys = [(row["data_type"], row["type_name"]) for row in rows]
        assert keys == sorted(keys)

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("BYTEA", "0aff"),
            ("INTERVAL", "1 day"),
            ("VARCHAR", "a"),
            ("DATE", "2026-11-25"),
            ("TIME", "12:00:00.123456789"),
            ("TIMESTAMP", "2026-11-25 12:00:00.123456789"),
            ("TIMESTAMP WITH TIME ZONE", "2026-11-25 12:00:00.123456789+00:00"),
        ],
    )
    def test_a_literal_is_written_as_described(self, engine, name, text):
        (row,) = [found for found in _types() if found["type_name"] == name]

        assert engine.sql(f"SELECT {row['literal_prefix']}{text}{row['literal_suffix']} AS x").count() == 1
        assert row["column_size"] in {None, len(text)}

    def test_one_number_asks_for_its_types(self):
        assert [row["type_name"] for row in _types(-5)] == ["BIGINT", "BIGINT UNSIGNED"]
        assert _types(0) == []
