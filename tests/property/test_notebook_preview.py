"""Whatever a server sends, a preview holds no markup of it and stays small."""

from html.parser import HTMLParser
from types import SimpleNamespace

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.errors import InvalidStatement
from micromegas_jupyter.notebook.login.display import lines_as_html
from micromegas_jupyter.notebook.login.session import offer_of
from micromegas_jupyter.notebook.results.table import preview_html, preview_text
from micromegas_jupyter.notebook.shell import error_lines, lines_html
from tests.property.arrow_tables import texts

OWN_TAGS = {"div", "table", "thead", "tbody", "tr", "th", "td", "br", "span", "em", "p"}
OWN_ATTRIBUTES = {"class", "style", "scope", "title"}

_value = st.none() | texts
_tables = st.integers(0, 3).flatmap(
    lambda rows: st.dictionaries(
        texts, st.lists(_value, min_size=rows, max_size=rows).map(lambda values: pa.array(values, pa.string())),
        min_size=1, max_size=3,
    )
).map(pa.table)  # fmt: skip


class _Seen(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = set()
        self.attributes = set()
        self.links = []
        self.pictures = []
        self.others = 0

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name == "href"]
        self.pictures += [value or "" for name, value in attrs if tag == "img" and name == "src"]

    def note_other(self, _data):
        self.others += 1

    handle_comment = handle_decl = handle_pi = note_other


def seen(html):
    parser = _Seen()
    parser.feed(html)
    parser.close()
    return parser


@settings(deadline=None)
@given(_tables)
def test_a_preview_has_only_its_own_markup(table):
    found = seen(preview_html(table))

    assert found.tags <= OWN_TAGS
    assert found.attributes <= OWN_ATTRIBUTES
    assert found.others == 0


@settings(deadline=None)
@given(_tables)
def test_a_plain_preview_has_no_control_characters_but_its_line_ends(table):
    text = preview_text(table)

    assert all(
        character == "\n" or character.isprintable() or character not in map(chr, range(32)) for character in text
    )


@given(texts, texts, st.integers(-2, 30), st.integers(-2, 30))
def test_an_error_has_only_its_own_markup_and_no_control_characters(what, sql, line, column):
    lines = error_lines(InvalidStatement(what, line=line, column=column), sql=sql)

    found = seen(lines_html(lines))

    assert found.tags == {"pre"}
    assert found.attributes == {"style"}
    assert not any(ord(character) < 32 for shown in lines for character in shown)


_addresses = texts | texts.map(lambda text: f"https://id.example.com/{text}") | texts.map(lambda text: f"http:{text}")


@given(st.lists(texts, max_size=3), _addresses, texts, st.sampled_from([Flow.BROWSER, Flow.DEVICE]))
def test_a_sign_in_has_only_its_own_markup_and_no_link_but_to_the_web(lines, address, code, flow):
    login = SimpleNamespace(
        flow=flow, start_url=address, verification_uri=address, verification_uri_complete=address, user_code=code
    )

    found = seen(lines_as_html(lines, offer=offer_of(login)))

    assert found.tags <= {"p", "br", "a"}
    assert found.attributes <= {"href", "target", "rel"}
    assert all(link.startswith(("http://", "https://")) for link in found.links)
