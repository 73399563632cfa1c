import json

import pyarrow as pa

from micromegas_jupyter.notebook.results.table import MAX_DATA_BYTES, result_data

TABLE = pa.table(
    {
        "time": pa.array([1_700_000_000, None, 1_600_000_000], pa.timestamp("s", "UTC")),
        "msg": ["</script><b>", None, "plain"],
    }
)


def test_each_column_has_its_name_type_nulls_texts_and_order() -> None:
    data = result_data(TABLE, max_rows=1_000)

    assert data.rows == 3
    assert json.loads(data.text) == {
        "rows": 3,
        "total": 3,
        "columnTotal": 2,
        "columns": [
            {
                "name": "time",
                "type": "timestamp[s, UTC]",
                "nulls": "1 null of 3 rows",
                "right": False,
                "order": [2, None, 1],
                "texts": ["2023-11-14 22:13:20", None, "2020-09-13 12:26:40"],
            },
            {
                "name": "msg",
                "type": "string",
                "nulls": "1 null of 3 rows",
                "right": False,
                "order": None,
                "texts": ["</script><b>", None, "plain"],
            },
        ],
    }


def test_nothing_in_it_can_end_the_element_that_it_stands_in() -> None:
    assert "<" not in result_data(TABLE, max_rows=1_000).text


def test_no_more_rows_are_taken_than_asked_for_and_it_says_how_many_there_are() -> None:
    table = pa.table({"n": range(2_500)})

    data = json.loads(result_data(table, max_rows=250).text)

    assert (data["rows"], data["total"]) == (250, 2_500)
    assert data["columns"][0]["texts"] == [str(number) for number in range(250)]


def test_large_values_leave_room_for_fewer_rows_and_all_columns_are_equally_long() -> None:
    table = pa.table({"large": ["é" * 1_000] * 5_000, "n": range(5_000)})

    data = result_data(table, max_rows=5_000)

    decoded = json.loads(data.text)
    assert 500 < data.rows < 700
    assert MAX_DATA_BYTES * 0.9 < len(data.text.encode()) < MAX_DATA_BYTES + 1_000
    assert {len(column["texts"]) for column in decoded["columns"]} == {data.rows}


def test_a_value_of_many_megabytes_costs_no_more_than_what_is_shown_of_it() -> None:
    table = pa.table({"large": pa.array(["x" * 20_000_000] * 3)})

    data = result_data(table, max_rows=1_000)

    assert data.rows == 3
    assert len(data.text) < 1_000


def test_only_the_first_fifty_columns_are_taken() -> None:
    data = json.loads(result_data(pa.table({f"column{index}": [1, 2] for index in range(60)}), max_rows=2).text)

    assert (len(data["columns"]), data["columnTotal"]) == (50, 60)


def test_a_result_without_columns_or_rows_is_data_too() -> None:
    assert json.loads(result_data(pa.table({}), max_rows=10).text)["columns"] == []
    assert json.loads(result_data(TABLE.slice(0, 0), max_rows=10).text)["rows"] == 0
