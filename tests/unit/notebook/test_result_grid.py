"""The grid's half in the kernel: what it answers a page, what it keeps, and what a notebook saves of it."""

import gzip
import io
import json
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Event
from threading import enumerate as enumerate_threads
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cachetools import LRUCache
from nbconvert import HTMLExporter

import micromegas_jupyter
from micromegas_jupyter.core.jsonb import encode
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook import SAVED_MIME_TYPE
from micromegas_jupyter.notebook import widget as widget_module
from micromegas_jupyter.notebook.query_result import QueryResult
from micromegas_jupyter.notebook.results import export as export_module
from micromegas_jupyter.notebook.results import grid as grid_module
from micromegas_jupyter.notebook.results.grid import CellSource, ResultGrid, shown_table
from micromegas_jupyter.notebook.results.view import RowsView
from tests.fakes.clock import FakeClock

ALL_ROWS = {"filters": {}, "sort": []}
MAX_SAVED_CHARACTERS = 60_000
TABLE = pa.table(
    {
        "n": pa.array([None if number % 3 else number for number in range(5000)], pa.int64()),
        "word": pa.array(["a", "b", None, "d", "e"] * 1000).dictionary_encode(),
        "list": [[number] for number in range(5000)],
        "n_bytes": range(5000),
    }
)


class Page:
    """A page that shows a grid: it asks, and notes the answers."""

    def __init__(self, table, monkeypatch):
        self.answers = {}
        self.buffers = {}
        self.grid = ResultGrid(RowsView(table), result_rows=table.num_rows)
        monkeypatch.setattr(ResultGrid, "send", self._note)

    def _note(self, content, buffers=None):
        self.answers[content["id"]] = content
        self.buffers[content["id"]] = buffers

    def tell(self, content):
        self.grid._handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})

    def ask(self, op, number=1, **details):
        self.tell({"id": number, "op": op, "order": ALL_ROWS, **details})
        return self.answers[number]


def spread(page, column):
    return page.ask("spreads", columns=[column])["answer"][column]


@pytest.fixture
def page(monkeypatch):
    return Page(TABLE, monkeypatch)


def test_a_page_gets_the_texts_of_some_rows_in_the_order_that_it_asks_for(page):
    order = {"filters": {"1": "= a", "0": "!="}, "sort": [[1, False], [0, True]]}

    answer = page.ask("rows", order=order, first=1, count=2)["answer"]

    assert answer["total"] == 334
    assert answer["texts"] == [["4,980", "4,965"], ["a", "a"], ["[4980]", "[4965]"], ["4,980", "4,965"]]
    assert json.loads(json.dumps(answer)) == answer
    assert len(page.ask("rows", first=0, count=10**9)["answer"]["texts"][0]) == 500


def test_columns_say_what_they_hold(page):
    assert page.grid.columns[1] == {
        "name": "word", "type": "text", "arrow_type": "dictionary<values=string, indices=int32, ordered=0>",
        "kind": "text", "unit": "", "nulls": 1000, "sortable": True,
    }  # fmt: skip
    assert [column["unit"] for column in page.grid.columns] == ["", "", "", "bytes"]
    assert [column["sortable"] for column in page.grid.columns] == [True, True, False, True]
    assert spread(page, 1)["top"] == [(each, 1000, 1000) for each in "abde"]
    assert spread(page, 0)["max"] == "4,998"


def test_the_filters_that_a_column_suggests_have_values_from_it(page):
    numbers, words, lists = (spread(page, column)["hint"] for column in range(3))

    assert (numbers, words, lists) == (
        "> 249, 249..750", "contains, = exact, !not, /regex/", "= for null, != for others",
    )  # fmt: skip
    for typed, expected in (("> 249", 1583), ("249..750", 168)):
        order = {"filters": {"0": typed}, "sort": []}
        assert page.ask("rows", order=order, first=0, count=1)["answer"]["total"] == expected


JSONB = pa.table(
    {
        "n": range(200),
        "properties": [
            None if n % 50 == 1 else encode({"n": n % 3, "who": "Ann" if n % 2 else "bob"}) for n in range(200)
        ],
        "hash": [n.to_bytes(2, "big") for n in range(200)],
    }
)


@pytest.mark.parametrize("keeps", [False, True], ids=["plain", "dictionary"])
def test_binary_json_is_shown_filtered_sorted_and_counted_as_json(keeps, monkeypatch):
    column = JSONB["properties"].dictionary_encode() if keeps else JSONB["properties"]
    page = Page(JSONB.set_column(1, "properties", column), monkeypatch)
    contains, ordered = {"filters": {"1": "ann"}, "sort": []}, {"filters": {}, "sort": [[1, True]]}

    described = page.grid.columns[1]
    shown = page.ask("rows", first=0, count=2)["answer"]["texts"][1]
    found = page.ask("rows", order=contains, first=0, count=500)["answer"]
    last = page.ask("rows", order=ordered, first=0, count=1)["answer"]["texts"][1]
    top = spread(page, 1)
    value = page.ask("value", row=0, column=1)["answer"]["text"]
    copied = page.ask("copy", rows=[0, 1], columns=[1, 2], header=False)["answer"]["text"]

    assert (described["type"], described["kind"], described["sortable"]) == ("jsonb", "text", True)
    assert shown == ['{"n":0,"who":"bob"}', None]
    assert (found["total"], set(found["texts"][1])) == (96, {f'{{"n":{n},"who":"Ann"}}' for n in range(3)})
    assert last == ['{"n":2,"who":"bob"}']
    assert (top["distinct"], top["top"][0]) == (6, ('{"n":0,"who":"bob"}', 34, 34))
    assert value == '{\n  "n": 0,\n  "who": "bob"\n}'
    assert copied == '{"n":0,"who":"bob"}\t0x0000\n\t0x0001'
    assert page.grid.columns[2]["type"] == "bytea"


def test_a_result_shows_binary_json_as_json_and_hands_on_the_bytes(tmp_path):
    result = QueryResult(JSONB[:2])

    assert result["properties"].tolist() == ['{"n":0,"who":"bob"}', None]
    assert next(iter(result))["properties"] == '{"n":0,"who":"bob"}'
    assert result.to_pandas(jsonb="bytes")["properties"][0] == JSONB["properties"][0].as_py()
    assert result.to_arrow().equals(JSONB[:2])
    assert result.to_polars()["properties"].to_list() == ['{"n":0,"who":"bob"}', None]
    assert '{"n":0,"who":"bob"}' in repr(result)
    for name in ("rows.parquet", "rows.csv"):
        result.save(tmp_path / name)
    assert pq.read_table(tmp_path / "rows.parquet").equals(JSONB[:2])
    assert (tmp_path / "rows.csv").read_text().splitlines()[1] == '0,"{""n"":0,""who"":""bob""}",AAA='


def test_a_value_that_is_not_json_is_shown_as_bytes_among_json(monkeypatch):
    values = [*(encode({"n": n}) for n in range(150)), b"\0other"]
    page = Page(pa.table({"p": values}), monkeypatch)

    texts = page.ask("rows", first=149, count=2)["answer"]["texts"][0]

    assert texts == ['{"n":149}', "0x006f74686572"]


def test_a_page_copies_exact_values_and_looks_at_whole_ones(page):
    copied = page.ask("copy", rows=[2, 3], columns=[0, 1, 2], header=True)["answer"]["text"]
    value = page.ask("value", row=3, column=2)["answer"]

    assert copied == "n\tword\tlist\n\t\t[2]\n3\td\t[3]"
    assert value == {"text": "[\n  3\n]", "is_cut": False}
    assert (
        "At most 100,000 cells can be copied"
        in page.ask("copy", rows=[0, 4999], columns=list(range(4)) * 10, header=False)["error"]
    )


ASKED = {"format": "parquet", "hidden": [2, 3], "order": {"filters": {"0": "< 9"}, "sort": [[0, True]]}}


def follow(page, number):
    """Return the state of an export that has ended, which a page polls, or the error."""
    for _ in range(1000):
        reply = page.ask("export_state", export=number)
        if "error" in reply or reply["answer"]["size"] is not None:
            break
        Event().wait(0.01)
    return reply


def test_a_file_is_downloaded_in_parts_and_then_forgotten(page, monkeypatch):
    monkeypatch.setattr(export_module, "PART_BYTES", 100)

    assert page.ask("export", 7, to="download", **ASKED)["answer"] == {"export": 7}
    state = follow(page, 7)["answer"]
    content = b""
    while len(content) < state["size"]:
        page.ask("export_part", export=7, first=len(content))
        content += page.buffers[1][0]

    assert pq.read_table(io.BytesIO(content)).to_pydict() == {"n": [6, 3, 0], "word": ["b", "d", "a"]}
    assert state["rows"] == state["total"] == 3
    assert re.fullmatch(r"result-\d{8}-\d{6}\.parquet", state["name"])
    page.ask("export_end", export=7)
    assert "no longer available" in page.ask("export_part", export=7, first=0)["error"]


def test_files_in_the_notebooks_folder_get_names_that_are_free(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(export_module, "SYSTEM_CLOCK", FakeClock())

    names = []
    for number in (1, 2, 3):
        page.ask("export", number, to="folder", **ASKED)
        names.append(follow(page, number)["answer"]["name"])

    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(names)
    assert [name[22:] for name in names] == [".parquet", "-2.parquet", "-3.parquet"]


@pytest.mark.parametrize("to", ["folder", "download"])
def test_a_canceled_export_leaves_no_file_and_the_page_is_served_meanwhile(page, monkeypatch, tmp_path, to):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    written, may_continue, ended = Event(), Event(), Event()
    write = RowsView.write

    def write_slowly(view, order, target, *, on_rows, **options):
        def wait(rows, total):
            written.set()
            assert may_continue.wait(60)
            on_rows(rows, total)

        try:
            write(view, order, target, on_rows=wait, **options)
        finally:
            ended.set()

    monkeypatch.setattr(RowsView, "write", write_slowly)
    page.ask("export", 1, to=to, **ASKED)
    assert written.wait(60)
    running = page.ask("export_state", 2, export=1)
    assert running["answer"]["size"] is None
    assert page.ask("rows", 3, first=0, count=1)["answer"]["total"] == 5000
    assert [each for each in tmp_path.iterdir() if each.suffix != ".tmp"] == []

    page.ask("export_end", 4, export=1)
    may_continue.set()

    assert ended.wait(60)
    while any(thread.name == "micromegas-export" for thread in enumerate_threads()):
        Event().wait(0.01)
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_is_canceled_after_its_last_row_leaves_no_file(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    written, may_continue = Event(), Event()
    write = RowsView.write_new_file

    def write_and_wait(view, order, path, **options):
        write(view, order, path, **options)
        written.set()
        assert may_continue.wait(60)

    monkeypatch.setattr(RowsView, "write_new_file", write_and_wait)
    page.ask("export", 1, to="folder", **ASKED)
    assert written.wait(60)
    assert len(list(tmp_path.iterdir())) == 1

    page.ask("export_end", 2, export=1)
    may_continue.set()

    while any(thread.name == "micromegas-export" for thread in enumerate_threads()):
        Event().wait(0.01)
    assert list(tmp_path.iterdir()) == []


def test_an_export_canceled_before_the_page_knows_its_end_leaves_no_file(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    page.ask("export", 1, to="folder", **ASKED)
    follow(page, 1)
    assert len(list(tmp_path.iterdir())) == 1

    page.ask("export_cancel", export=1)

    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_no_file(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    page = Page(pa.table({"a": pa.array([(1, 2, 3)], pa.month_day_nano_interval())}), monkeypatch)

    page.ask("export", 1, to="folder", format="parquet", hidden=[])
    assert "parquet file cannot hold" in follow(page, 1)["error"]
    assert list(tmp_path.iterdir()) == []
    page.ask("export", 2, to="folder", format="csv", hidden=[])
    assert "answer" in follow(page, 2)


@pytest.mark.parametrize(
    "message",
    [
        {"op": "rows", "order": {"filters": {"9": "1"}, "sort": []}, "first": 0, "count": 5},
        {"op": "rows", "order": {"filters": {}, "sort": [[2, True]]}, "first": 0, "count": 5},
        {"op": "rows", "order": None, "first": 0, "count": 5},
        {"op": "spreads", "order": ALL_ROWS, "columns": [4]},
        {"op": "chart", "order": ALL_ROWS, "chart": {"x": [9]}, "width": 600, "ignored": []},
        {"op": "brush", "plot": 1, "panel": 0, "ranges": {}},
        {"op": "pick", "order": ALL_ROWS, "column": 9, "what": "only", "row": 0},
        {"op": "value", "order": ALL_ROWS, "row": 5000, "column": 0},
        {"op": "export", "order": ALL_ROWS, "format": "../../x", "hidden": [], "to": "folder"},
        {"op": "__class__", "order": ALL_ROWS},
        {},
    ],
)
def test_whatever_a_page_asks_it_gets_an_answer(page, message):
    page.tell({"id": 7, **message})

    assert page.answers[7] == {"id": 7, "error": "The kernel could not do that."}


@pytest.mark.parametrize("content", [None, [], "rows", {"op": "rows"}, {"id": "1", "op": "rows"}])
def test_what_is_no_question_is_not_answered(page, content):
    page.tell(content)

    assert page.answers == {}


@pytest.mark.parametrize(
    ("typed", "column"),
    [
        ("abc", 0), ("1..x", 0), ("in 1, 2", 0), ("null", 0), ("not null", 2), ("between 1 and 9", 0), ("> nan nan", 0),
        ("inf", 0), ("> 5", 2), ("/(/", 1), (">", 1), ("!", 1), ("!/(/", 1), ("1..", 0), ("..", 0), ("!" * 999, 0),
        ("x" * 1001, 1), ("\ud800", 1), ("1e999999999999", 0), ("x\x1b[2J", 0),
    ],
)  # fmt: skip
def test_a_filter_that_does_not_fit_is_refused_with_what_would(page, typed, column):
    answer = page.ask("rows", order={"filters": {str(column): typed}, "sort": []}, first=0, count=5)

    assert re.search("Try: |Use ", answer["error"])
    assert answer["error"].isprintable()


def test_many_threads_get_their_own_rows(page):
    def ask(number):
        order = {"filters": {"3": f">= {number}"}, "sort": [[3, bool(number % 2)]]}
        answer = page.ask("rows", number, order=order, first=0, count=1)["answer"]
        return answer["total"], answer["texts"][3]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(1, 60)))

    assert found == [(5000 - each, ["4,999" if each % 2 else str(each)]) for each in range(1, 60)]


def test_rows_that_were_used_last_are_kept_within_a_bound(monkeypatch):
    monkeypatch.setattr(grid_module, "_held", LRUCache(3 * TABLE.nbytes, lambda view: view.table.nbytes))
    pages = [Page(pa.concat_tables([TABLE]).combine_chunks(), monkeypatch) for _ in range(3)]
    monkeypatch.setattr(ResultGrid, "send", lambda grid, content, *_: setattr(grid, "last", content))

    def is_referenced(page):
        page.tell({"id": 1, "op": "value", "order": ALL_ROWS, "row": 0, "column": 0})
        return "answer" in page.grid.last

    assert is_referenced(pages[0])
    pages.append(Page(pa.concat_tables([TABLE]).combine_chunks(), monkeypatch))
    monkeypatch.setattr(ResultGrid, "send", lambda grid, content, *_: setattr(grid, "last", content))

    assert [is_referenced(page) for page in pages] == [True, False, True, True]
    assert pages[1].grid.last["error"] == "These rows are no longer available. Run the cell again."
    pages[3].grid.close()
    assert not is_referenced(pages[3])


def test_rows_that_nobody_else_keeps_are_held_up_to_the_bound(monkeypatch):
    table = pa.table({"n": range(10_000)})
    monkeypatch.setattr(grid_module, "MAX_HELD_BYTES", table.nbytes // 4)

    assert "first 20 of 10,000 rows" in shown_table(table, max_rows=100_000, is_referenced=False)[0]["text/plain"]


@pytest.fixture
def kernel(monkeypatch):
    """A kernel whose cell a person runs."""
    parent = {"content": {"allow_stdin": True}}
    shell = SimpleNamespace(kernel=SimpleNamespace(get_parent=lambda _channel: parent))
    monkeypatch.setattr(widget_module, "get_ipython", lambda: shell)
    return parent


def test_a_grid_shows_what_arrow_reads():
    for rows in (TABLE, TABLE.to_pandas(), QueryResult(TABLE)):
        with closing(micromegas_jupyter.ResultGrid(rows)) as grid:
            assert (grid.total, len(grid.columns), grid.note) == (TABLE.num_rows, TABLE.num_columns, "")
    with pytest.raises(UsageError, match="int"):
        micromegas_jupyter.ResultGrid(7)


def test_voila_shows_widgets_although_a_program_runs_its_cells(kernel, monkeypatch):
    kernel["content"]["allow_stdin"] = False
    assert not grid_module.shows_widgets()
    monkeypatch.setenv("VOILA_PREHEAT", "False")
    assert grid_module.shows_widgets()


WIDE = pa.table({f"{number} {'wide' * 20}": ["x" * 300] * 100 for number in range(2000)})


@pytest.mark.parametrize(
    "table", [TABLE, WIDE, TABLE.select([0]), TABLE.slice(0, 0)], ids=["usual", "wide", "narrow", "none"]
)
def test_what_is_saved_of_a_result_is_small_and_stands_by_itself(kernel, table, monkeypatch):
    made = []
    monkeypatch.setattr(
        grid_module, "ResultGrid", lambda *args, **options: made.append(ResultGrid(*args, **options)) or made[-1]
    )
    bundle, _ = QueryResult(table)._repr_mimebundle_()
    (state,) = made
    saved = {name: value for name, value in state.get_state().items() if name not in ("_esm", "_css")}

    assert bundle[SAVED_MIME_TYPE] == {"version": 1}
    assert len(json.dumps(bundle) + json.dumps(saved)) < MAX_SAVED_CHARACTERS
    assert "<script" not in bundle["text/html"]
    assert bundle["text/html"].count("<th ") <= table.num_columns
    note = f"The grid shows the first {len(state.columns)} of 2,000 columns (a file has all)."
    assert state.note == (note if table is WIDE else "")


def test_a_notebook_as_html_has_the_saved_table_and_nothing_that_runs(kernel):
    bundle, _ = QueryResult(TABLE)._repr_mimebundle_()
    output = nbformat.v4.new_output("display_data", bundle)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("%sql", outputs=[output])])

    page, _ = HTMLExporter(template_name="basic").from_notebook_node(notebook)

    assert "first 20 of 5,000 rows" in page
    assert "bigint · bytes" in page
    assert "<script" not in page


def test_without_a_person_a_grid_or_a_column_only_the_saved_table_is_shown(kernel):
    names = {"text/html", "text/plain"}

    assert set(QueryResult(TABLE, max_rows=0)._repr_mimebundle_()[0]) == names
    assert set(QueryResult(TABLE.select([]))._repr_mimebundle_()[0]) == names
    kernel["content"]["allow_stdin"] = False
    assert set(QueryResult(TABLE)._repr_mimebundle_()[0]) == names


def test_the_saved_table_says_what_it_shows():
    lines = repr(QueryResult(pa.table({"name": ["山", None], "size_bytes": [1500, 2]}))).split("\n")

    assert lines == [
        "name          size_bytes",
        "text      bigint · bytes",
        "------  ----------------",
        "山                 1,500",
        "null                   2",
        "2 rows",
    ]
    assert repr(QueryResult(TABLE, max_rows=100)).endswith("first 20 of 5,000 rows")
    assert repr(QueryResult(WIDE)).endswith(" of 2,000 columns")
    assert repr(QueryResult(pa.table({}))) == "0 rows"


def test_a_result_is_used_as_people_first_try(tmp_path):
    table = pa.table([[1, 2, 3], ["a", "b", "c"], [4, 5, 6]], names=["n", "city", "n"])
    result = QueryResult(table)

    assert (len(result), result.shape, result.columns, "city" in result) == (3, (3, 3), ["n", "city", "n"], True)
    assert result["city"].to_list() == ["a", "b", "c"]
    assert result[["city"]].shape == (3, 1)
    assert result["n"].shape == (3, 2)
    assert result[1:].to_arrow().equals(table.slice(1))
    assert len(result[::2]) == 2
    assert result.head(2).to_pandas().shape == (2, 3)
    assert result.to_polars is not None
    assert pa.table(QueryResult(table.select([0, 1]))).equals(table.select([0, 1]))
    assert list(QueryResult(table.select([0, 1])))[1] == {"n": 2, "city": "b"}
    for name in ("rows.parquet", "rows.csv", "rows.arrow"):
        QueryResult(table.select([0, 1])).save(tmp_path / name)
    assert pq.read_table(tmp_path / "rows.parquet").to_pydict() == {"n": [1, 2, 3], "city": ["a", "b", "c"]}
    assert (tmp_path / "rows.csv").read_text().splitlines() == ["n,city", "1,a", "2,b", "3,c"]


MASK = [True, None, False, True]


@pytest.mark.parametrize(
    "mask",
    [
        [True, False, False, True], MASK, np.array([True, False, False, True]), pd.Series(MASK),
        pd.array(MASK, dtype="boolean"), pa.array(MASK), pa.chunked_array([MASK[:1], MASK[1:]]), pl.Series(MASK),
        np.array([0, 3]), [0, -1], pa.array([0, 3], pa.uint8()), pd.Index([0, 3]), pd.Series([0, 3]),
    ],
    ids=lambda mask: type(mask).__name__,
)  # fmt: skip
def test_rows_are_chosen_by_masks_and_positions_of_any_library(mask):
    result = QueryResult(pa.table({"n": [1, 2, 3, 4], "properties": [encode({"n": n}) for n in range(4)]}))

    chosen = result[mask]

    assert isinstance(chosen, QueryResult)
    assert list(chosen) == [{"n": 1, "properties": '{"n":0}'}, {"n": 4, "properties": '{"n":3}'}]


def test_integers_and_slices_of_numpy_work_as_those_of_python():
    result = QueryResult(TABLE)

    for position in (4, np.int64(4), np.uint8(4), -4996, np.int32(-4996), pa.scalar(4)):
        assert result[position] == {"n": None, "word": "e", "list": [4], "n_bytes": 4}
    assert result[np.int64(2) : np.int64(4)].to_arrow().equals(TABLE[2:4])
    assert len(result[np.array([], np.int64)]) == 0
    assert result[(name for name in ["n", "word"])].shape == (5000, 2)


def test_a_mask_of_pandas_matches_rows_by_its_index():
    result = QueryResult(pa.table({"n": [3, 1, 2]}))
    by_size = result.to_pandas().sort_values("n")

    assert result[by_size["n"] >= 2]["n"].to_list() == [3, 2]
    assert result[result["n"] >= 2]["n"].to_list() == [3, 2]


def test_rows_are_no_dictionaries_if_two_columns_have_the_same_name():
    result = QueryResult(pa.table([[1], [2]], names=["n", "n"]))

    for use in (iter, list, lambda rows: rows[0]):
        with pytest.raises(
            UsageError, match="Several columns of the result are called n, and a dictionary can hold only one"
        ):
            use(result)


@pytest.mark.parametrize(
    ("use", "what"),
    [
        (lambda result, _: result["nothing"], "There is no column 'nothing'"),
        (lambda result, _: result[5000], "There is no row 5000: the result has 5,000 rows"),
        (lambda result, _: result[np.array([0, -5001])], "There is no row -5001"),
        (lambda result, _: result[[True]], "The mask has 1 values, and the result 5,000 rows"),
        (lambda result, _: result[result["n"][::2] > 1], "The mask has 2,500 values"),
        (lambda result, _: result[pd.Series([True] * 5000, range(1, 5001))], "index does not number the rows"),
        (lambda result, _: result[None], "have these rows or columns"),
        (lambda result, _: result[True], "have these rows or columns"),
        (lambda result, _: result.groupby("n"), "to_pandas"),
        (lambda result, folder: result.save(folder / "x.txt"), "format"),
        (lambda result, folder: [result.save(folder / "x.csv") for _ in range(2)], "already"),
        (lambda result, folder: result.save(folder / "none" / "x.csv"), "could not be written"),
    ],
)
def test_what_a_result_does_not_do_is_said(use, what, tmp_path):
    with pytest.raises(Exception, match=what):
        use(QueryResult(TABLE), tmp_path)


SECONDS = pa.table(
    {
        "time": pa.array(range(1_793_491_200, 1_793_491_200 + 600), pa.timestamp("s", "UTC")).cast(
            pa.timestamp("ns", "UTC")
        ),
        "service": ["api", "O'Neil", None] * 200,
        "n": pa.array(range(600), pa.int64()),
        "took": pa.array(range(600), pa.duration("ms")),
    }
)


def selected(page, filters):
    order = {"filters": {str(column): typed for column, typed in filters.items()}, "sort": []}
    return page.ask("rows", order=order, first=0, count=0)["answer"]["total"]


@pytest.mark.parametrize(
    ("chart", "ranges", "filters", "rows"),
    [
        (
            {"kind": "bar", "x": [0]},
            {"x": [1_793_491_231_000, 1_793_491_301_000]},
            {0: "2026-11-01 00:00:30..<2026-11-01 00:01:45"},
            75,
        ),
        ({"kind": "line", "x": [0], "y": [2]}, {"x": [1_793_491_231_400, 1_793_491_233_000]}, None, 5),
        ({"kind": "hist", "x": [2]}, {"x": [41, 59]}, {2: "40..<60"}, 20),
        ({"kind": "hist", "x": [3]}, {"x": [0.041, 0.059]}, {3: "0.04s..<0.06s"}, 20),
        ({"kind": "heat", "x": [0], "y": [2]}, {"y": [41, 99]}, {0: "", 2: "0..<100"}, 100),
        ({"kind": "bar", "x": [1]}, {"x": ["O'Neil"]}, {1: '= "O\'Neil"'}, 200),
        ({"kind": "bar", "x": [1]}, {"x": ["null"]}, {1: "="}, 200),
        ({"kind": "bar", "x": [1]}, {}, {1: ""}, 600),
    ],
)
def test_a_brush_becomes_filters_that_end_at_slots(chart, ranges, filters, rows, monkeypatch):
    page = Page(SECONDS, monkeypatch)
    drawn = page.ask("chart", chart=chart, width=700, ignored=[])["answer"]

    found = page.ask("brush", plot=drawn["plot"], panel=0, ranges=ranges)["answer"]["filters"]

    assert filters is None or found == filters
    assert selected(page, {column: typed for column, typed in found.items() if typed}) == rows
    assert json.loads(json.dumps(drawn)) == drawn


def test_a_chart_shows_the_rows_that_match_and_all_along_its_own_brush(monkeypatch):
    page = Page(SECONDS, monkeypatch)
    order = {"filters": {"2": "< 100", "1": "api"}, "sort": []}

    texts = [
        page.ask("chart", order=order, chart={"kind": "hist", "x": [2]}, width=700, ignored=ignored)["answer"]["text"]
        for ignored in ([], [2])
    ]

    assert [text.splitlines()[-1].strip() for text in texts] == ["34 rows", "200 rows"]


def test_cells_have_the_selection_or_the_chart_and_the_options_of_the_first(monkeypatch):
    page = Page(SECONDS, monkeypatch)
    assert "No statement" in page.ask("cell", chart=None, hidden=[])["error"]
    page.grid._source = CellSource("%%sql --begin 1h", "SELECT * FROM r", 500)
    order = {"filters": {"2": "< 100"}, "sort": [[0, True]]}
    chart = {"kind": "line", "x": [0], "y": [2, 3], "color": [1], "agg": ["p50", "p99"], "bins": 50, "log": "y"}

    cells = [page.ask("cell", order=order, chart=each, hidden=[3])["answer"]["source"] for each in (None, chart)]
    plain = page.ask("cell", chart={}, hidden=[])["answer"]["source"]

    assert cells[0] == (
        '%%sql --begin 1h\nSELECT "time", "service", "n" FROM (\nSELECT * FROM (\nSELECT * FROM r\n'
        ') AS result LIMIT 500\n) AS result\nWHERE "n" < 100\nORDER BY "time" DESC NULLS LAST'
    )
    head, *lines = cells[1].splitlines()
    assert head == "%%sql --begin 1h --plot line --x time --y n,took --color service --agg p50,p99 --bins 50 --log y"
    assert lines[0] == "SELECT * FROM ("
    assert plain == "%%sql --begin 1h --limit 500 --plot\nSELECT * FROM r"


def test_vega_comes_from_the_kernel_once_it_is_wanted(page):
    page.ask("vega")
    assert b"Vega" in gzip.decompress(page.buffers[1][0])[:100]
