"""The server tells the facts that clients ask for, in the union that Flight SQL prescribes."""

from micromegas_jupyter.server.sql_info import SQL_INFO_SCHEMA, build_sql_info


def _facts(*info_ids: int) -> dict[int, object]:
    return {row["info_name"]: row["value"] for row in build_sql_info(info_ids).to_pylist()}


def test_the_server_is_read_only_and_has_no_transactions() -> None:
    assert _facts(3, 4, 5, 8, 9, 10) == {3: True, 4: True, 5: False, 8: 0, 9: False, 10: False}


def test_the_lists_that_grafanas_editor_needs_are_there() -> None:
    facts = _facts()

    assert all(isinstance(facts[info_id], list) and facts[info_id] for info_id in (508, 509, 510, 511, 512))
    assert facts[511] == ["array", "arrow_typeof", "struct"]


def test_unknown_ids_are_left_out() -> None:
    assert _facts(0, 99_999) == {0: "micromegas_jupyter"}
    assert _facts(99_999) == {}


def test_the_batch_is_valid_and_has_the_prescribed_union() -> None:
    batch = build_sql_info(())

    batch.validate(full=True)
    assert batch.schema == SQL_INFO_SCHEMA
    assert [field.name for field in batch.schema.field("value").type] == [
        "string_value",
        "bool_value",
        "bigint_value",
        "int32_bitmask",
        "string_list",
        "int32_to_int32_list_map",
    ]
