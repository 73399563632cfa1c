"""The line of `%%sql`: whatever stands on it is taken apart without loss, or refused with this package's error."""

import keyword
import re
import unicodedata
from argparse import Namespace

from hypothesis import given
from hypothesis import strategies as st

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.magics.sql import FORMATS, SqlMagic, SqlRequest
from micromegas_jupyter.notebook.plotting import KINDS
from micromegas_jupyter.notebook.shell import parse_sql_line

_PIECES = st.sampled_from(
    [
        "--begin",
        "--limit=",
        "--explain",
        "--",
        "-",
        "<<",
        "df",
        "df <<",
        "'",
        '"',
        "=",
        " ",
        "\t",
        "1h",
        ":a",
        "SELECT 1",
    ]
)
# As a request holds them: in the form in which Python reads names.
_NAMES = (
    st.from_regex(r"[A-Za-z_]\w{0,8}", fullmatch=True)
    .map(lambda name: unicodedata.normalize("NFKC", name))
    .filter(lambda name: re.fullmatch(r"\w+", name) and name.isidentifier() and not keyword.iskeyword(name))
)
_VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="'\""), min_size=1, max_size=12)
_SQL = st.text(st.characters(exclude_categories=["Cs"]), max_size=40).map("SELECT {}".format)


def split(line, cell=None):
    return parse_sql_line(SqlMagic.micromegas_sql, line, cell)


@given(st.lists(_PIECES | st.text(max_size=5), max_size=12).map(" ".join), st.none() | _SQL)
def test_any_line_is_taken_apart_or_refused(line, cell):
    try:
        parts = split(line, cell)
    except UsageError:
        return

    assert parts.sql.strip()
    assert line.endswith(parts.sql) if cell is None else parts.sql.endswith(cell)


@given(_SQL)
def test_a_statement_on_the_line_or_below_it_arrives_as_it_is(sql):
    assert split(sql).sql == sql.lstrip()
    assert split("df << --limit 5", sql).sql == sql


@given(
    name=st.none() | _NAMES,
    begin=st.none() | _VALUES,
    limit=st.none() | st.integers(0, 10**9),
    row_format=st.none() | st.sampled_from(list(FORMATS)),
    plot=st.none() | st.just(value=True) | st.sampled_from(KINDS),
    x=st.none() | st.text(st.sampled_from("a (*)'"), min_size=1, max_size=6).filter(str.strip),
    sql=_SQL.map(str.strip),
)
def test_the_cell_of_a_past_query_asks_for_the_same(*, name, begin, limit, row_format, plot, x, sql):
    options = Namespace(begin=begin, limit=limit, format=row_format, plot=plot, x=x, explain=False)
    request = SqlRequest(sql=sql, name=name, options=options)

    first, _, body = request.cell_text().partition("\n")
    parts = split(first.removeprefix("%%sql"), body)

    assert (parts.name, parts.sql) == (name, sql)
    assert {**vars(parts.options), **vars(options)} == vars(parts.options)
