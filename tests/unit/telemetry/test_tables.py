import pytest

from micromegas_jupyter.telemetry import LOG_ENTRIES, MEASURES, PROCESSES, STREAMS, TABLES, TableDefinition

DICT = "dictionary<values=string, indices=int32, ordered=0>"
TIME = "timestamp[ns, tz=+00:00]"
MAP = "map<string, string>"


def _described(definition: TableDefinition) -> list[tuple[str, str, bool]]:
    return [(field.name, str(field.type).partition(" ('")[0], field.nullable) for field in definition.schema]


def test_log_entries_has_upstreams_columns_in_order() -> None:
    assert _described(LOG_ENTRIES) == [
        ("process_id", DICT, False),
        ("stream_id", DICT, False),
        ("block_id", DICT, False),
        ("insert_time", TIME, False),
        ("exe", DICT, False),
        ("username", DICT, False),
        ("computer", DICT, False),
        ("time", TIME, False),
        ("target", DICT, False),
        ("level", "int32", False),
        ("msg", "string", False),
        ("properties", MAP, False),
        ("process_properties", MAP, False),
    ]


def test_measures_has_upstreams_columns_in_order() -> None:
    assert _described(MEASURES) == [
        ("process_id", DICT, False),
        ("stream_id", DICT, False),
        ("block_id", DICT, False),
        ("insert_time", TIME, False),
        ("exe", DICT, False),
        ("username", DICT, False),
        ("computer", DICT, False),
        ("time", TIME, False),
        ("target", DICT, False),
        ("name", DICT, False),
        ("unit", DICT, False),
        ("value", "double", False),
        ("properties", MAP, False),
        ("process_properties", MAP, False),
    ]


def test_processes_has_upstreams_columns_in_order() -> None:
    assert [name for name, _, _ in _described(PROCESSES)] == [
        "process_id",
        "exe",
        "username",
        "realname",
        "computer",
        "distro",
        "cpu_brand",
        "tsc_frequency",
        "start_time",
        "start_ticks",
        "insert_time",
        "parent_process_id",
        "properties",
        "last_update_time",
        "last_block_end_ticks",
        "last_block_end_time",
    ]
    assert _described(PROCESSES)[0] == ("process_id", "string", False)
    assert {kind for name, kind, _ in _described(PROCESSES) if name.endswith("_time")} == {TIME}


def test_streams_has_upstreams_columns_in_order() -> None:
    assert [(name, kind) for name, kind, _ in _described(STREAMS)] == [
        ("stream_id", "string"),
        ("process_id", "string"),
        ("dependencies_metadata", "binary"),
        ("objects_metadata", "binary"),
        ("tags", "list<item: string>"),
        ("properties", MAP),
        ("insert_time", TIME),
        ("format", "string"),
        ("last_update_time", TIME),
    ]


@pytest.mark.parametrize("definition", TABLES, ids=lambda definition: definition.name)
def test_the_columns_that_a_definition_names_exist(definition: TableDefinition) -> None:
    assert {*definition.range_columns, *definition.sort_columns} <= set(definition.schema.names)


def test_only_partial_state_tables_have_a_raw_name_and_merge_sql() -> None:
    assert (PROCESSES.raw_name, STREAMS.raw_name) == ("__processes__partitions", "__streams__partitions")
    assert LOG_ENTRIES.raw_name is None
    assert LOG_ENTRIES.merge_sql is None
    assert MEASURES.merge_sql is None
    assert PROCESSES.range_columns == ("insert_time", "last_update_time")
    assert LOG_ENTRIES.range_columns == ("time", "time")
