import pyarrow as pa
import pytest

from micromegas_jupyter.notebook.results.table import QueryResult, preview_html, result_bundle, result_html, static_text

TABLE = pa.table({"n": range(1_500)})


def test_the_preview_comes_first_and_the_table_to_work_with_after_it() -> None:
    html = result_html(TABLE, max_rows=1_000)

    assert preview_html(TABLE) in html
    assert html.count('<script type="application/json">{"rows":1000,"total":1500,') == 1
    assert html.endswith(f"<script>{static_text('result.js')}</script></div>")


@pytest.mark.parametrize(("table", "max_rows"), [(TABLE, 0), (TABLE, 1), (TABLE.slice(0, 1), 1_000), (pa.table({}), 9)])
def test_there_is_no_script_where_there_is_nothing_to_sort(table: pa.Table, max_rows: int) -> None:
    assert result_html(table, max_rows=max_rows) == preview_html(table)


def test_rows_too_large_for_the_table_stay_a_preview() -> None:
    table = pa.table({f"column{index}": ["<" * 200] * 30 for index in range(50)})

    assert result_html(table, max_rows=1_000) == preview_html(table)


def test_a_result_and_a_variable_s_preview_are_shown_alike() -> None:
    bundle = result_bundle(TABLE, max_rows=100)

    assert bundle["text/html"] == QueryResult(TABLE, max_rows=100)._repr_html_()
    assert bundle["text/plain"] == repr(QueryResult(TABLE))


def test_the_scripts_that_are_saved_with_each_result_are_small_and_hold_no_other_address() -> None:
    saved = [static_text(name) for name in ("result.js", "result.css")]

    assert sum(map(len, saved)) < 12_000
    assert not any(part in text for text in saved for part in ("//", "</", "import(", "@import", "fetch("))
