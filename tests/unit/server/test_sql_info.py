"""The server tells the facts that clients ask for, in the union that Flight SQL prescribes."""

from datafusion import SessionContext

from micromegas_jupyter.server.catalog import SQL_INFO_SCHEMA, ServerFacts, build_sql_info


def _facts(*info_ids: int, facts: ServerFacts | None = None) -> dict[int, object]:
    batch = build_sql_info(info_ids, facts or ServerFacts(prepared_idle_seconds=600))
    return {row["info_name"]: row["value"] for row in batch.to_pylist()}


def test_the_server_is_read_only_and_has_no_transactions() -> None:
    assert _facts(3, 4, 5, 8, 9, 10) == {3: True, 4: True, 5: False, 8: 0, 9: True, 10: False}


def test_a_server_that_takes_rows_is_not_read_only() -> None:
    assert _facts(3, 10, facts=ServerFacts(takes_rows=True)) == {3: False, 10: True}


def test_the_life_of_a_prepared_statement_is_told_in_milliseconds() -> None:
    assert _facts(100) == {100: 600_000}
    assert _facts(100, facts=ServerFacts(prepared_idle_seconds=1e9)) == {100: 2**31 - 1}


def test_the_syntax_is_told_as_the_engine_has_it() -> None:
    engine = SessionContext()

    def rows(sql: str) -> list[dict[str, object]]:
        found: list[dict[str, object]] = engine.sql(sql).to_pylist()
        return found

    facts = _facts()
    # 503, 504: lower case without quotes; 507: nulls are highest; 516, 520, 521, 522, 538 to 540: as the names say.
    assert facts[503] == 3
    assert rows('SELECT A AS x FROM (VALUES (1)) t("a")') == [{"x": 1}]
    assert facts[507] == 0
    assert rows("SELECT x FROM (VALUES (1), (NULL)) t(x) ORDER BY x")[1] == {"x": None}
    assert facts[516] is True
    assert rows("SELECT NULL || 'a' AS x") == [{"x": None}]
    assert facts[521] is True
    assert rows("SELECT x FROM (VALUES (1, 2), (2, 1)) t(x, y) ORDER BY -y") == [{"x": 1}, {"x": 2}]
    assert facts[538] == 0b1111
    assert rows("SELECT 1 AS x WHERE 1 = (SELECT 1) AND EXISTS (SELECT 1) AND 1 IN (SELECT 1) AND 1 = ANY (SELECT 1)")
    assert facts[528] == 2
    assert len(rows("SELECT * FROM (VALUES (1)) a(x) FULL JOIN (VALUES (2)) b(y) ON a.x = b.y")) == 2


def test_the_lists_that_grafanas_editor_needs_are_there() -> None:
    facts = _facts()

    assert all(isinstance(facts[info_id], list) and facts[info_id] for info_id in (508, 509, 510, 511, 512))
    assert facts[511] == ["array", "arrow_typeof", "struct"]


def test_unknown_ids_are_left_out() -> None:
    assert _facts(0, 99_999) == {0: "micromegas_jupyter"}
    assert _facts(99_999) == {}


def test_the_batch_is_valid_and_has_the_prescribed_union() -> None:
    batch = build_sql_info((), ServerFacts())

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
