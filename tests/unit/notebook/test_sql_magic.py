"""`%sql` and `%%sql` in a shell, the reader that later cells read, and `%micromegas_queries`."""

import re
from decimal import Decimal
from types import SimpleNamespace

import polars as pl
import pyarrow as pa
import pytest

from micromegas_jupyter.client.query_reader import ScanCounts
from micromegas_jupyter.errors import InvalidStatement, LoginRequired, QueryCancelled, UsageError
from micromegas_jupyter.notebook.query_result import QueryResult
from micromegas_jupyter.notebook.results.rows import Ending, Progress, RowReader
from tests.fakes.clock import FakeClock
from tests.fakes.notebook_world import ROWS, FakeReader


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("--limit many", "Argument --limit: invalid int value: 'many'"),
        ("--limit -1", "--limit must be a number of rows"),
        ("--begin yesterday", "'yesterday' is not a valid time"),
        ("--end 1h", "--end requires --begin"),
        ("--unknown", "--unknown is not an option"),
        ("--explain --dry-run", "cannot be combined"),
        ("--dry-run --format reader", "cannot be combined"),
        ("--plot=pie", "invalid choice: 'pie'"),
        ("--x time", "--x requires a chart"),
        ("--log y", "--log requires a chart"),
        ("--plot --format reader", "--plot needs all rows, but a reader hasn't fetched any yet"),
        ("SELECT :low, :high", "There is no variable for :low, :high"),
        ("SELECT :when", ":when cannot be bound"),
    ],
)
def test_what_cannot_be_understood_is_refused_before_anything_is_sent(shell, world, line, what):
    shell.user_ns["when"] = object()

    with pytest.raises(UsageError, match=what):
        shell.run_cell_magic("sql", line, "SELECT 1")

    assert world.asked == []


def test_defaults_of_options_come_from_ipythons_configuration(shell, world):
    shell.run_line_magic("config", "SqlMagic.limit = 7")
    shell.run_line_magic("config", "SqlMagic.format = 'arrow'")

    rows = shell.run_line_magic("sql", "SELECT 1")
    shell.run_line_magic("sql", "--limit 5 SELECT 1")

    assert isinstance(rows, pa.Table)
    assert [query["limit"] for query in world.asked] == [7, 5]


@pytest.mark.parametrize(
    "line", ["--limit {n} --connection {name}", "--limit=$n --connection=$name", '--limit "{n}" --connection "{name}"']
)
def test_options_take_variables_and_the_statement_does_not(shell, world, line):
    shell.user_ns.update(n=7, name="'a\" --traceback", hours="2h")
    with pytest.raises(UsageError, match=re.escape("""no connection named "'a" --traceback".""")):
        shell.run_cell_magic("sql", line, "SELECT 1")
    with pytest.raises(UsageError, match='There is no variable named "missing"'):
        shell.run_cell_magic("sql", "--begin {missing}", "SELECT 1")

    shell.run_cell_magic("sql", "--limit {n} --begin $hours", "SELECT '{n}', '$n'")
    shell.run_cell("def read(limit):\n    %sql --limit {limit} SELECT '{n}'\nread(3)").raise_error()

    assert [(query["sql"], query["limit"]) for query in world.asked] == [
        ("SELECT '{n}', '$n'", 7),
        ("SELECT '{n}'", 3),
    ]
    assert world.asked[0]["begin"] is not None


def test_an_ended_sign_in_is_looked_up_afresh_by_the_next_query(shell, world):
    world.stored.failure = LoginRequired("The provider ended the session.")
    failed = shell.run_cell("%sql SELECT 1")
    world.stored.failure = None

    done = shell.run_cell("%sql SELECT 1")

    assert isinstance(failed.error_in_exec, LoginRequired)
    assert done.success
    assert len(world.clients) == 2


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("--plot point", "✗ The y axis needs another numeric column (n bigint)."),
        ("--plot bar --y mgs", '✗ The result has no column "mgs". Did you mean msg?'),
    ],
)
def test_why_there_is_no_chart_is_one_line_and_the_rows_are_there(shell, capsys, options, why):
    done = shell.run_cell(f"%%sql {options}\nSELECT n, msg FROM t")

    assert done.success
    assert len(done.result) == 3
    assert capsys.readouterr().out.splitlines()[1].startswith(why)


def test_a_kind_follows_plot_and_any_other_word_begins_the_statement(shell, world, capsys):
    shell.run_cell("%sql --plot SELECT n FROM t")
    shell.run_cell("a = %sql --plot bar --x msg --y n SELECT n, msg FROM t")
    shell.run_cell("%%sql --plot=hist\nSELECT n, msg FROM t")
    shell.run_cell("%%sql --plot bar --x msg --y n --agg p50,max --log y\nSELECT n, msg FROM t")

    assert [query["sql"].strip() for query in world.asked] == [
        "SELECT n FROM t",
        "SELECT n, msg FROM t",
        "SELECT n, msg FROM t",
        "SELECT n, msg FROM t",
    ]
    shown = capsys.readouterr().out
    assert [line for line in shown.splitlines() if " chart: " in line] == [
        "bar chart: n by msg",
        "hist chart: n",
        "bar chart: p50, max of n by msg",
    ]


@pytest.mark.parametrize(
    ("column", "what"),
    [
        (pa.array([Decimal("1" * 50)]), r"polars cannot hold these columns \(x decimal256"),
        (pa.RunEndEncodedArray.from_arrays([1], [1]), r"polars cannot hold these columns \(x run_end_encoded"),
    ],
    ids=["decimal256", "run-end encoded"],
)
def test_columns_that_polars_cannot_hold_are_refused_before_rows_are_fetched(shell, world, column, what):
    world.script = [pa.record_batch({"x": column})]

    with pytest.raises(UsageError, match=what):
        shell.run_line_magic("sql", "--format polars SELECT x")

    assert world.readers[0].is_closed
    assert world.readers[0].rows == 0


@pytest.mark.parametrize("options", ["", "--format arrow", "--format pandas", "--format polars", "--dtype pyarrow"])
def test_a_cell_that_ends_with_rows_shows_their_table_whatever_holds_them(shell, capsys, options):
    done = shell.run_cell(f"%sql {options} SELECT n, msg FROM t")
    shown = shell.display_formatter.format(done.result)[0]

    assert "3 rows\n" in capsys.readouterr().out
    # The value's own display is that of its library again.
    assert ("3 rows" in shown["text/plain"]) is (type(done.result) is QueryResult)


def listed(shell, line=""):
    return [tuple(row) for row in shell.run_line_magic("micromegas_queries", line).rows]


def test_queries_are_listed_with_how_they_ended(shell, world):
    rows = world.script
    shell.run_cell("a = %sql SELECT n,   msg FROM t")
    world.script = [rows[0], KeyboardInterrupt()]
    shell.run_cell("b = %sql SELECT 2")
    world.script, world.open_failure = rows, InvalidStatement("No.", query_id="5e5e5e5e5e5e")
    shell.run_cell("c = %sql SELECT 3")
    world.open_failure = None
    shell.run_cell("d = %sql --format reader SELECT 4")
    running = listed(shell)[-1]
    shell.run_cell("d.read_all()")

    table = shell.run_line_magic("micromegas_queries", "")

    assert [tuple(row[2:]) for row in table.rows] == [
        ("done", "3", "1.0 s", "7f3a91c2", "SELECT n, msg FROM t"),
        ("cancelled", "2", "1.0 s", "7f3a91c2", "SELECT 2"),
        ("failed", "0", "0.00 s", "5e5e5e5e", "SELECT 3"),
        ("done", "3", "1.0 s", "7f3a91c2", "SELECT 4"),
    ]
    assert repr(table).splitlines()[-1].endswith("done            3   1.0 s  7f3a91c2  SELECT 4")
    assert running[2] == "running"


def test_a_query_is_run_again_with_its_options_and_the_values_of_then(shell, world):
    shell.user_ns["levels"] = [1, 2]
    shell.run_cell("%sql rows << --begin 1h --limit 5 --format arrow SELECT n FROM t WHERE level IN :levels")
    shell.user_ns["levels"].append(3)
    del shell.user_ns["rows"]
    world.clock.advance(600)

    shell.run_line_magic("micromegas_queries", "--rerun 1")

    assert world.asked[1]["params"] == {"levels": (1, 2)}
    assert (world.asked[1]["limit"], world.asked[1]["sql"]) == (5, world.asked[0]["sql"])
    assert world.asked[1]["begin"] > world.asked[0]["begin"]
    assert shell.user_ns["rows"].num_rows == 3
    assert [row[0] for row in listed(shell)] == ["1", "2"]


def test_the_line_shows_how_much_is_scanned_and_at_the_end_what_was_read():
    progress, reader = Progress(clock := FakeClock()), FakeReader([], FakeClock(), 0, "7f3a91c2d4e5")
    progress.note(reader)
    clock.advance(4)
    progress.scanned = "scanned 37 % of 812 files"
    running = progress.line()
    reader.counts = ScanCounts(812, 812, 131_000_000, 2_000_000)
    progress.note(reader)
    progress.end(Ending.DONE)

    assert running == "⏳ 4.0 s · 0 rows · 0 B · scanned 37 % of 812 files · query 7f3a91c2"
    read = "read 812 of 812 files, 131 MB, 2,000,000 rows"
    assert progress.line() == f"✓ 0 rows in 4.0 s · 0 B · {read} · query 7f3a91c2"


BATCHES = ROWS.to_batches(max_chunksize=2)


class Started:
    """A reader over scripted parts, with what follows it."""

    def __init__(self, *script):
        self.finished = []
        self.failures = []
        self.source = FakeReader(list(script or BATCHES), clock := FakeClock(), 0.5, "7f3a91c2d4e5")
        self.progress = Progress(clock)
        line = SimpleNamespace(finish=self.finished.append)
        options = {"target": " → rows (reader)", "sql": "SELECT n", "on_failure": self.failures.append}
        self.rows = RowReader(self.source, self.progress, line, **options)


@pytest.mark.parametrize(
    "take",
    [
        lambda rows: rows.read_all(),
        lambda rows: pa.table(rows.read_pandas()),
        lambda rows: pa.RecordBatchReader.from_stream(rows).read_all(),
        lambda rows: pl.DataFrame(rows).to_arrow(),
    ],
    ids=["read_all", "read_pandas", "arrow stream", "polars"],
)
def test_whatever_takes_arrow_takes_the_reader(take):
    started = Started()

    table = take(started.rows)

    assert table.column("msg").to_pylist() == ["a", "<b>", "c"]
    assert started.progress.ending is Ending.DONE


def test_an_interrupt_ends_it_as_a_line_and_what_is_left_is_not_taken_for_the_end():
    started = Started(BATCHES[0], KeyboardInterrupt())
    next(started.rows)

    with pytest.raises(KeyboardInterrupt) as interrupt:
        next(started.rows)

    ended = "✗ cancelled after 1.0 s, 2 rows received, stopped on the server · query 7f3a91c2"
    assert interrupt.value._render_traceback_() == [ended]
    assert started.finished[-1] == f"{ended} → rows (reader)"
    with pytest.raises(QueryCancelled):
        next(started.rows)
    assert started.progress.ending is Ending.CANCELLED
    assert started.source.is_closed


def test_a_failure_is_a_line_with_its_place_in_the_statement_and_is_raised_again():
    error = InvalidStatement("No.", line=1, column=8, remedy="")
    started = Started(BATCHES[0], error)

    with pytest.raises(InvalidStatement):
        list(started.rows)

    assert error._render_traceback_()[1:3] == ["    SELECT n", "           ^ line 1, column 8"]
    assert started.finished[-1] == "✗ failed after 1.0 s, 2 rows received · query 7f3a91c2 → rows (reader)"
    with pytest.raises(InvalidStatement):
        next(started.rows)
    assert (started.progress.ending, started.failures) == (Ending.FAILED, [error])
