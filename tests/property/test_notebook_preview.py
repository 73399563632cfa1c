"""Whatever a server sends, a preview holds no markup of it and stays small."""

from html.parser import HTMLParser

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from micromegas_jupyter.errors import InvalidStatement
from micromegas_jupyter.notebook.error_lines import error_lines, lines_html
from micromegas_jupyter.notebook.identity_state import lines_as_html
from micromegas_jupyter.notebook.preview import preview_html, preview_text

_OWN_TAGS = {"div", "table", "thead", "tbody", "tr", "th", "td", "br", "span", "em", "p"}
_OWN_ATTRIBUTES = {"class", "style", "scope", "title"}

# Pieces of markup beside any text, so that an escape that is missing is found soon.
_markup = st.sampled_from(["<script>", "</td>", "<img src=x onerror=alert(1)>", "&lt;", '"', "'", "<!--", "\x1b[2J"])
_text = st.lists(_markup | st.text(st.characters(exclude_categories=["Cs"]), max_size=10), max_size=4).map("".join)
_value = st.none() | _text
_tables = st.integers(0, 3).flatmap(
    lambda rows: st.dictionaries(
        _text, st.lists(_value, min_size=rows, max_size=rows).map(lambda values: pa.array(values, pa.string())),
        min_size=1, max_size=3,
    )
).map(pa.table)  # fmt: skip


class _Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.others = 0

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_comment(self, data):
        self.others += 1

    def handle_decl(self, _decl):
        self.others += 1

    def handle_pi(self, data):
        self.others += 1


def seen(html: str) -> _Seen:
    parser = _Seen()
    parser.feed(html)
    parser.close()
    return parser


@settings(deadline=None)
@given(_tables)
def test_a_preview_has_only_its_own_markup(table: pa.Table) -> None:
    found = seen(preview_html(table))

    assert found.tags <= _OWN_TAGS
    assert found.attributes <= _OWN_ATTRIBUTES
    assert found.others == 0


@settings(deadline=None)
@given(_tables)
def test_a_plain_preview_has_no_control_characters_but_its_line_ends(table: pa.Table) -> None:
    text = preview_text(table)

    assert all(
        character == "\n" or character.isprintable() or character not in map(chr, range(32)) for character in text
    )


@given(_text, _text, st.integers(-2, 30), st.integers(-2, 30))
def test_an_error_has_only_its_own_markup_and_no_control_characters(
    what: str, sql: str, line: int, column: int
) -> None:
    lines = error_lines(InvalidStatement(what, line=line, column=column), sql=sql)

    found = seen(lines_html(lines))

    assert found.tags == {"pre"}
    assert found.attributes == {"style"}
    assert not any(ord(character) < 32 for shown in lines for character in shown)


@given(st.lists(_text, max_size=3), _text)
def test_a_sign_in_has_only_its_own_markup_and_no_link_but_to_the_web(lines: list[str], url: str) -> None:
    found = seen(lines_as_html(lines, link_url=url))

    assert found.tags <= {"p", "br"}
    assert found.attributes == set()
