import pyarrow as pa

from micromegas_jupyter.notebook.results.table import QueryResult, preview_html, preview_text

TABLE = pa.table(
    {
        "time": pa.array([1_700_000_000_000_000_000, None], pa.timestamp("ns", "+00:00")),
        "level": pa.array([3, 4], pa.int32()),
        "msg": ["<b>bold</b>", None],
    }
)


def test_plain_text_has_names_types_values_and_a_count() -> None:
    assert preview_text(TABLE).split("\n") == [
        "time                           level  msg",
        "timestamp[ns, UTC]             int32  string",
        "-----------------------------  -----  -----------",
        "2023-11-14 22:13:20.000000000      3  <b>bold</b>",
        "null                               4  null",
        "2 rows",
    ]


def test_html_has_types_under_names_and_null_counts_in_titles() -> None:
    html = preview_html(TABLE)

    assert 'title="msg: 1 null of 2 rows"' in html
    assert ">timestamp[ns, UTC]</span>" in html
    assert "&lt;b&gt;bold&lt;/b&gt;" in html
    assert html.count("<em") == 2


def test_only_the_first_rows_and_columns_are_shown_and_it_says_so() -> None:
    table = pa.table({f"column{index}": range(1_500) for index in range(60)})

    html = preview_html(table)

    assert "first 20 of 1,500 rows · first 50 of 60 columns" in html
    assert html.count("<tr>") == 21
    assert html.count("<th ") == 50


def test_a_large_result_makes_a_small_preview() -> None:
    column = pa.array(["<" * 100_000] * 30)
    table = pa.table({f"column{index}": column for index in range(50)})

    assert len(preview_html(table)) < 2_000_000


def test_null_counts_are_those_of_all_rows() -> None:
    table = pa.table({"n": [1] * 30 + [None] * 5})

    assert 'title="n: 5 null of 35 rows"' in preview_html(table)


def test_results_without_rows_or_columns_are_shown_too() -> None:
    assert preview_text(TABLE.slice(0, 0)).endswith("0 rows")
    assert "<tbody></tbody>" in preview_html(TABLE.slice(0, 0))
    assert preview_text(pa.table({})) == "0 rows"


def test_columns_of_one_name_are_all_shown() -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["n", "n"])

    assert preview_text(table).split("\n")[-2].split() == ["1", "2"]


def test_a_result_gives_all_its_rows_again_and_again() -> None:
    result = QueryResult(TABLE)

    first, second = result.to_pandas(), result.DataFrame

    assert first.equals(second)
    assert list(first["level"]) == [3, 4]
    assert result.arrow.num_rows == len(result) == 2
    assert "2 rows" in repr(result)
    assert "2 rows" in result._repr_html_()
