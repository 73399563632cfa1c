"""What the engine makes of any text: its own errors only, and no code that hides from its scanner."""

import contextlib
import functools

import pyarrow as pa
from datafusion import SessionContext
from hypothesis import example, given
from hypothesis import strategies as st

from micromegas_jupyter.engine.errors import Context, translate
from micromegas_jupyter.engine.planning import check_statement, find_placeholders
from micromegas_jupyter.engine.scanner import Kind, scan
from micromegas_jupyter.errors import MicromegasError, QueryError

# Between blanks, since several of them are quotes; `_` stands for a blank.
_SIGNS = """' '' " E' e' N' x' b' r' q'[ U&' ` \\ \\' -- /* */ $$ $t$ $p $q ? || a ( ) [ ] { } , ; + 1 . é _"""
_WHOLE = [
    "'a'", "''''", r"'\'", r"E'\''", r"E'\\'", "E''''", '"c"', "/* ' */", "-- '\n", "x'00'", "$p",
]  # fmt: skip
TRICKY = st.sampled_from([sign.replace("_", " ") for sign in _SIGNS.split(" ")] + ["\n", "\r"])
PIECES = st.lists(st.sampled_from(_WHOLE) | TRICKY, max_size=12).map("".join)


@functools.cache
def session():
    context = SessionContext()
    context.register_record_batches("t", [pa.table({"c": ["c"], "a": ["a"]}).to_batches()])
    return context


@given(PIECES)
def test_no_text_breaks_the_guard(text):
    with contextlib.suppress(QueryError):
        find_placeholders(check_statement("SELECT " + text, max_bytes=65536))


@given(PIECES)
def test_after_a_doubt_every_sign_is_seen(text):
    found = scan(text)

    seen = {token.start for token in found.tokens if token.start >= found.certain_until}
    covered = {place for token in found.tokens for place in range(token.start, token.start + len(token.text))}
    assert all(text[place].isspace() or place in covered for place in range(found.certain_until, len(text)))
    assert found.is_certain or seen


@given(
    st.lists(st.sampled_from([" || ", " = ", ", ", " "]), min_size=6, max_size=6),
    st.lists(PIECES, min_size=1, max_size=6),
)
@example([" || "] * 6, ["'\\'", "$p", "'a'"])
@example([" "] * 6, ["E'\\''", "|| $p", "-- '\n"])
def test_datafusion_finds_no_placeholder_that_the_scanner_missed(joiners, pieces):
    text = (
        "SELECT 1, " + "".join(piece + joiner for piece, joiner in zip(pieces, joiners, strict=False)) + " 'z' FROM t"
    )
    found = scan(text)
    names = {token.text[1:] for token in found.tokens if token.kind is Kind.PLACEHOLDER}
    try:
        session().sql(text)
    except ValueError:
        return  # DataFusion could not read it, so it holds no placeholder

    assert "No value found" not in outcome_of_binding(text, {"unused", *names})


def outcome_of_binding(text, names):
    try:
        session().sql(text, param_values={name: pa.scalar("v") for name in names})
    except Exception as error:  # noqa: BLE001 - DataFusion has no classes; a bound value may have the wrong type
        return str(error)
    return "bound"


@given(
    st.text(max_size=300),
    st.sampled_from(["", "SQL error: ", "Error during planning: ", "Arrow error: ", "Schema error: No field named "]),
)
def test_any_text_of_the_engine_becomes_an_error_of_the_package(text, prefix):
    found = translate(ValueError(prefix + text), Context(sql="SELECT " + text, tables=("t",)))

    assert isinstance(found, MicromegasError)
    assert "\n" not in found.what
