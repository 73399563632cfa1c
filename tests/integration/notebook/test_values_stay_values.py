"""Hostile texts as parameters of real `%%sql` cells over a real server: each arrives as the value that it is."""

import itertools

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter import quote_identifier
from micromegas_jupyter.notebook.extension import register
from micromegas_jupyter.notebook.login.connections import NotebookServices
from tests.integration.notebook.interrupting import served

pytestmark = pytest.mark.integration

TEXTS_PER_QUERY = 8
SECRET = "the other table's secret"


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    numbers = pa.array(range(len(TEXTS)), pa.int64())
    pq.write_table(pa.table({"id": numbers, "text": pa.array(TEXTS, pa.string())}), folder / "texts.parquet")
    pq.write_table(pa.table({"id": range(len(BYTES)), "data": pa.array(BYTES, pa.binary())}), folder / "blobs.parquet")
    pq.write_table(pa.table({"secret": [SECRET]}), folder / "secrets.parquet")
    with served(folder) as (uri, _audit):
        yield uri


@pytest.fixture(autouse=True)
def _registered(shell, uri, monkeypatch):
    monkeypatch.setenv("MICROMEGAS_ANALYTICS_URI", uri)
    register(shell, NotebookServices())


def rows(shell, sql, **variables):
    """Run a cell with these variables and return its rows."""
    shell.user_ns.update(variables)
    table = shell.run_cell_magic("sql", "--format arrow", sql)
    return list(table.to_pylist())


def ids(shell, sql, **variables):
    """Run a cell with these variables and return the ids of its rows."""
    return [row["id"] for row in rows(shell, sql, **variables)]


def broken(found):
    """Return the pairs that are not equal, shortened."""
    return [f"{got!r:.80} instead of {wanted!r:.80}" for got, wanted in found if got != wanted]


def test_a_text_comes_back_as_it_was_sent_and_equals_itself_and_nothing_else(shell):
    found = []
    for start in range(0, len(TEXTS), TEXTS_PER_QUERY):
        batch = list(enumerate(TEXTS))[start : start + TEXTS_PER_QUERY]
        columns = (
            f":v{n} AS value{n}, (SELECT array_agg(id) FROM texts WHERE text = :v{n}) AS ids{n}" for n, _ in batch
        )
        (row,) = rows(shell, f"SELECT {', '.join(columns)}", **{f"v{n}": text for n, text in batch})
        found += [((row[f"value{n}"], row[f"ids{n}"]), (text, [n])) for n, text in batch]

    assert len(found) == len(TEXTS)
    assert broken(found) == []


def test_a_list_holds_its_elements_and_nothing_else(shell):
    statement = "SELECT id FROM texts WHERE text IN :values ORDER BY id"
    chunks = [range(start, min(start + 37, len(TEXTS))) for start in range(0, len(TEXTS), 37)]

    found = [(ids(shell, statement, values=[TEXTS[n] for n in chunk]), list(chunk)) for chunk in chunks]
    alone = [(ids(shell, statement, values=(TEXTS[n],)), [n]) for n in range(0, len(TEXTS), 19)]

    assert broken(found + alone) == []


def test_a_pattern_is_only_ever_a_pattern(shell):
    def escaped(text):
        return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")

    statement = "SELECT id FROM texts WHERE text LIKE :value"
    chosen = [n for n, text in enumerate(TEXTS) if len(text) < 1000 and (n % 7 == 0 or set(text) & set("%_\\"))]

    found = [(ids(shell, statement, value=escaped(TEXTS[n])), [n]) for n in chosen]

    assert broken(found) == []
    assert len(ids(shell, statement, value="%")) == len(TEXTS)


def test_bytes_come_back_and_equal_themselves(shell):
    statement = "SELECT id, :value AS value FROM blobs WHERE data = :value"

    found = [(rows(shell, statement, value=data), [{"id": n, "value": data}]) for n, data in enumerate(BYTES)]
    listed = ids(shell, "SELECT id FROM blobs WHERE data IN :values ORDER BY id", values=list(BYTES[:40]))

    assert broken(found) == []
    assert listed == list(range(40))


def test_a_text_stays_text_whatever_it_looks_like(shell):
    looks = ["1", "1.5", "true", "null", "2026-11-25T12:00:00Z", "[1]"]

    found = [(rows(shell, "SELECT arrow_typeof(:value) AS kind", value=text), [{"kind": "Utf8"}]) for text in looks]

    assert broken(found) == []


def test_a_quoted_name_is_that_name_and_nothing_else(shell):
    names = [text for text in TEXTS if 0 < len(text) < 1000 and "\0" not in text and "{{" not in text]

    found = [(rows(shell, f"SELECT 7 AS {quote_identifier(name)}"), [{name: 7}]) for name in names[::3]]

    assert broken(found) == []


_QUOTES = ("'", '"', "`", "''", "\\'", "’", "‘", "ʼ", "＇", "“", "”", "«", "´", "´´")
_ENDS = ("", "--", "-- ", "#", "/*", "*/", ";", ";--", "\x00")
_CLAUSES = (
    " OR 1=1",
    " OR '1'='1",
    " UNION SELECT secret FROM secrets",
    "; DROP TABLE texts",
    "; SELECT 1",
    ") OR (1=1",
    " AND 1=(SELECT count(*) FROM secrets)",
)
_PLACEHOLDERS = (
    ":value", ":other", "::text", "$1", "$value", "$$", "$$ text $$", "$tag$ text $tag$", "?", "??", "@value", "%s",
    "%(value)s", "{value}", "{{value}}", "{{ 1 + 1 }}", "${value}", "#{value}", "<<", "rows <<", "--limit 1",
    "--traceback",
)  # fmt: skip
_WORDS = (
    "NULL", "null", "TRUE", "DEFAULT", "CURRENT_USER", "now()", "1", "0", "-1", "1e308", "0x41", "NaN", "Infinity",
    "1.0", "007", "1; 2", "2026-11-25", "2026-11-25T12:00:00Z", "{}", "[]", '{"a": "b\'c"}', '["x", null]',
    "<script>alert(1)</script>", "&amp;", "%41", "\\x41", "\\u0041", "E'\\n'", "X'41'", "N'a'", "b'a'", "U&'\\0041'",
    "array[1]", "(SELECT 1)", "a.b", "information_schema.tables", "../../etc/passwd", "file:///etc/passwd",
)  # fmt: skip
_BLANKS = (
    "", " ", "  ", "\t", "\n", "\r\n", "\r", "\v", "\f", "\u00a0", "\u2028", "\u2029", "\u200b", "\ufeff", "\u3000",
    " leading", "trailing ", "line\nbreak", "cr\rlf\r\n", "\x00", "a\x00b", "\x01\x02\x1b[31m", "\x7f", "\x85",
)  # fmt: skip
_SCRIPTS = (
    "Ünïcödé", "U\u0308", "\u00dc", "日本語", "한국어", "हिन्दी", "العربية", "עברית", "\u202eabc\u202c", "\u2066x\u2069",
    "😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "\U0010ffff", "\ufffd", "\ud7ff", "\ue000", "ß", "ẞ", "ı", "İ", "ﬁ", "Å", "Å", "Ω",
    "a\u0301\u0301\u0301",
)  # fmt: skip
_PATTERNS = (
    "%", "_", "%%", "a%", "%a", "a_b", "\\%", "\\_", "\\", "\\\\", "\\\\'", "a\\", "[a-z]", "^a$", ".*", "a|b",
)  # fmt: skip
_LONG = ("x" * 70_000, "'" * 10_000, "é" * 40_000, "; DROP TABLE texts; --" * 5_000, "(" * 5_000, "\\" * 9_999)


def _injections():
    return [f"a{quote}{clause}{end}" for quote, clause, end in itertools.product(_QUOTES[:6], _CLAUSES, _ENDS[:5])]


TEXTS = tuple(
    dict.fromkeys(
        (
            *_QUOTES,
            *(f"O{quote}Brien" for quote in _QUOTES),
            *(f"a{quote}{end}" for quote, end in itertools.product(_QUOTES[:5], _ENDS)),
            *_injections(),
            *_PLACEHOLDERS,
            *_WORDS,
            *_BLANKS,
            *_SCRIPTS,
            *_PATTERNS,
            *_LONG,
        )
    )
)
"""Several hundred texts, each once."""

BYTES = (
    b"", b"\x00", b"\xff\xfe", b"'; DROP TABLE texts; --", b"\\x41", bytes(range(256)), b"\x80abc", b"%_",
    b"\xed\xa0\x80",
    *(text.encode() for text in TEXTS[:60]),
)  # fmt: skip
