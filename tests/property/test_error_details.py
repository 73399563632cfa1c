"""Errors survive the wire, and bytes from anywhere do no harm."""

from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from micromegas_jupyter.errors import Correction, InvalidStatement, MicromegasError
from micromegas_jupyter.flightsql.commands import (
    MAX_DETAILS_BYTES,
    MAX_STATUS_BYTES,
    decode_error,
    encode_error,
    parse_status_text,
    printable_text,
    status_text,
)

_UNENCODED = " !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"
_SENTENCES = st.text(max_size=3000)
_PLACES = st.integers(1, 2**31 - 1)
_POSITIONS = st.none() | _PLACES


@given(_SENTENCES, _SENTENCES, _POSITIONS, _POSITIONS)
def test_any_error_fits_its_bounds_and_keeps_its_facts(what, remedy, line, column):
    error = InvalidStatement(what, remedy=remedy, line=line, column=column, query_id="q-1")

    details, text = encode_error(error), status_text(error)

    found = decode_error(details)
    assert len(details) <= MAX_DETAILS_BYTES
    assert len(quote(text, safe=_UNENCODED)) <= MAX_STATUS_BYTES
    assert isinstance(found, InvalidStatement)
    assert (found.line, found.column, found.query_id) == (line, column, "q-1")
    assert printable_text(what).startswith(found.what.removesuffix(" …"))


@given(st.builds(Correction, _PLACES, _PLACES, st.integers(0, 2**31 - 1), st.text(max_size=300)))
def test_a_correction_of_at_most_200_characters_arrives(correction):
    error = InvalidStatement("No.", line=1)
    error.correction = correction

    found = decode_error(encode_error(error))

    sent = correction._replace(text=printable_text(correction.text))
    assert found.correction == (sent if len(correction.text) <= 200 else None)


@given(_SENTENCES)
def test_a_status_text_names_its_class(what):
    found = parse_status_text(status_text(InvalidStatement(what, query_id="q-1")))

    assert type(found) is InvalidStatement
    assert found.query_id == "q-1"


@given(st.binary(max_size=MAX_DETAILS_BYTES + 10))
def test_any_bytes_are_an_error_or_none(data):
    assert isinstance(decode_error(data), MicromegasError | None)


@given(st.text())
def test_any_text_is_an_error_or_none(text):
    assert isinstance(parse_status_text(text), MicromegasError | None)


@given(st.text())
def test_printable_text_stays_printable(text):
    shown = printable_text(text)

    assert printable_text(shown) == shown
    assert shown.replace("\n", "").replace("\ufffd", "").isprintable() or any(
        ord(character) > 0x7F for character in shown
    )
