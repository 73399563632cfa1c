"""Tests of `settings.decoding`."""

import pytest

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.settings.decoding import as_count, as_list, as_object, as_text, decode_setting


def test_json_is_decoded():
    assert decode_setting('{"a": [1]}', "KEY") == {"a": [1]}


@pytest.mark.parametrize("text", ["", "{", "secret", '{"secret": 1, "secret": 2}', "[NaN]", "[secret]"])
def test_text_that_is_not_json_is_an_error_that_does_not_repeat_it(text):
    with pytest.raises(ConfigurationError) as caught:
        decode_setting(text, "KEY")

    assert caught.value.key == "KEY"
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_object_with_known_names_is_returned():
    assert as_object({"a": 1}, "KEY", known=frozenset({"a", "b"})) == {"a": 1}


def test_an_unknown_name_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ConfigurationError, match="unknown name 'auditor'") as caught:
        as_object({"auditor": 1}, "KEY", known=frozenset({"issuer", "audience"}))

    assert caught.value.remedy == "Known names: audience, issuer."


def test_without_a_list_of_names_all_are_known():
    assert as_object({"a": 1}, "KEY") == {"a": 1}


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_another_value_is_no_object(value):
    with pytest.raises(ConfigurationError, match="KEY is not a JSON object"):
        as_object(value, "KEY")


def test_a_list_is_returned():
    assert as_list([1], "KEY") == [1]


@pytest.mark.parametrize("value", [None, {}, "x", 1])
def test_another_value_is_no_list(value):
    with pytest.raises(ConfigurationError, match="KEY is not a JSON list"):
        as_list(value, "KEY")


@pytest.mark.parametrize("value", ["a", "Zoë läke", " a "])
def test_printable_text_is_returned(value):
    assert as_text(value, "KEY") == value


@pytest.mark.parametrize("value", [None, 5, [], "", "  ", "a\nb", "\x1b[31m", "\u2028", "\ud800"])
def test_another_value_is_no_text(value):
    with pytest.raises(ConfigurationError, match="KEY is not a text of printable characters"):
        as_text(value, "KEY")


@pytest.mark.parametrize("value", [1, 10])
def test_a_whole_number_in_range_is_returned(value):
    assert as_count(value, "KEY", maximum=10) == value


@pytest.mark.parametrize("value", [0, 11, -1, 1.0, True, "5", None])
def test_another_value_is_no_count(value):
    with pytest.raises(ConfigurationError, match="KEY is not a whole number from 1 to 10"):
        as_count(value, "KEY", maximum=10)
