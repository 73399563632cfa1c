"""Whatever a server sends, what a notebook saves holds no markup of it and stays small."""

from html.parser import HTMLParser
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.errors import InvalidStatement
from micromegas_jupyter.notebook.login.display import lines_as_html
from micromegas_jupyter.notebook.login.session import waiting_state
from micromegas_jupyter.notebook.results.grid import static_table
from micromegas_jupyter.notebook.results.view import RowsView
from micromegas_jupyter.notebook.shell import error_lines
from tests.fakes.notebook_world import SETTINGS
from tests.property.arrow_tables import tables, texts

MAX_CHARACTERS = 31_000
OWN_TAGS = {"div", "table", "thead", "tbody", "tr", "th", "td", "br", "span", "em", "p"}
OWN_ATTRIBUTES = {"class", "style", "scope", "title"}


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


@given(tables(), st.integers(0, 10**9))
def test_any_table_is_shown_in_little_room_with_its_own_markup_and_no_control_characters(table, more):
    view = RowsView(table)

    html, text = static_table(view, table.num_rows + more).values()

    found = seen(html)
    assert found.tags <= OWN_TAGS
    assert found.attributes <= OWN_ATTRIBUTES
    assert found.others == 0
    assert len(html) + len(text) < MAX_CHARACTERS
    assert all(line.isprintable() or not set(line) & set(map(chr, range(32))) for line in text.split("\n"))


@given(texts, texts, st.integers(-2, 30), st.integers(-2, 30))
def test_an_error_has_no_control_characters(what, sql, line, column):
    lines = error_lines(InvalidStatement(what, line=line, column=column), sql=sql)

    assert not any(ord(character) < 32 for shown in lines for character in shown)


_addresses = texts | texts.map(lambda text: f"https://id.example.com/{text}") | texts.map(lambda text: f"http:{text}")


@given(st.lists(texts, max_size=3), _addresses, texts, st.sampled_from([Flow.BROWSER, Flow.DEVICE]))
def test_a_sign_in_has_only_its_own_markup_and_no_link_but_to_the_web(lines, address, code, flow):
    login = SimpleNamespace(
        flow=flow,
        start_url=address,
        verification_uri=address,
        verification_uri_complete=address,
        user_code=code,
        expires_at=None,
    )

    found = seen(lines_as_html(lines, waiting_state(SETTINGS, login)))

    assert found.tags <= {"p", "br", "a"}
    assert found.attributes <= {"href", "target", "rel"}
    assert all(link.startswith(("http://", "https://")) for link in found.links)
