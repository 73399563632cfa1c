"""Tests of `settings.decoding`."""

import enum
from datetime import UTC, datetime, timedelta

import pytest

from micromegas_jupyter.config.decoding import (
    as_choice,
    as_count,
    as_flag,
    as_list,
    as_moment,
    as_named,
    as_object,
    as_rate,
    as_text,
    as_text_or_texts,
    as_texts,
    decode_setting,
)
from micromegas_jupyter.errors import ConfigurationError


class Answer(enum.StrEnum):
    YES = "yes"
    NO = "no"


def test_json_is_decoded():
    assert decode_setting('{"a": [1]}', "KEY") == {"a": [1]}


@pytest.mark.parametrize("text", ["", "{", "secret", '{"secret": 1, "secret": 2}', "[NaN]", "[secret]"])
def test_text_that_is_not_json_is_an_error_that_does_not_repeat_it(text):
    with pytest.raises(ConfigurationError) as caught:
        decode_setting(text, "KEY")

    assert caught.value.key == "KEY"
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_unknown_name_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ConfigurationError, match="unknown name 'auditor'") as caught:
        as_object({"auditor": 1}, "KEY", known=frozenset({"issuer", "audience"}))

    assert caught.value.remedy == "Known names: audience, issuer."


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_another_value_is_no_object(value):
    with pytest.raises(ConfigurationError, match="KEY is not a JSON object"):
        as_object(value, "KEY")


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


@pytest.mark.parametrize("value", [0, 11, -1, 1.0, True, "5", None])
def test_another_value_is_no_count(value):
    with pytest.raises(ConfigurationError, match="KEY is not a number from 1 to 10"):
        as_count(value, "KEY", maximum=10)


@pytest.mark.parametrize("text", [" " * (16 * 2**20 + 1), "ä" * (8 * 2**20 + 1)], ids=["characters", "bytes"])
def test_a_text_longer_than_the_limit_is_not_decoded(text):
    with pytest.raises(ConfigurationError, match="KEY is longer than 16 MiB") as caught:
        decode_setting(text, "KEY")

    assert caught.value.key == "KEY"


def test_an_unknown_name_is_shown_cut_and_escaped():
    with pytest.raises(ConfigurationError) as caught:
        as_object({"\n" * 1000: 1}, "KEY", known=frozenset({"a"}))

    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 257])
def test_a_name_that_could_not_be_shown_is_refused(name):
    with pytest.raises(ConfigurationError, match="KEY has a name that is empty, not printable or longer"):
        as_named({name: 1}, "KEY")


def test_more_names_than_the_limit_are_refused():
    with pytest.raises(ConfigurationError, match="KEY has more than 10000 names"):
        as_named({str(number): 1 for number in range(10_001)}, "KEY")


@pytest.mark.parametrize(
    ("value", "key"),
    [("a", "KEY"), ({}, "KEY"), (None, "KEY"), ([], "KEY"), (["a", ""], "KEY[1]"), (["a"] * 10_001, "KEY")],
)
def test_another_value_is_no_list_of_texts(value, key):
    with pytest.raises(ConfigurationError) as caught:
        as_texts(value, "KEY")

    assert caught.value.key == key


@pytest.mark.parametrize(("value", "texts"), [("a", ("a",)), (["a", "b"], ("a", "b"))])
def test_one_text_may_stand_for_a_list_of_one(value, texts):
    assert as_text_or_texts(value, "KEY") == texts


@pytest.mark.parametrize("value", [0, 1, "true", None, []])
def test_another_value_is_no_flag(value):
    with pytest.raises(ConfigurationError, match="KEY is not true or false"):
        as_flag(value, "KEY")


@pytest.mark.parametrize("value", [0.5, 1, 1000.0])
def test_a_number_in_range_is_returned(value):
    assert as_rate(value, "KEY", minimum=0.5, maximum=1000) == value


@pytest.mark.parametrize("value", [0.4, 1000.1, -1, True, "1", None, float("nan"), float("inf"), 10**400])
def test_another_value_is_no_number_in_range(value):
    with pytest.raises(ConfigurationError, match=r"KEY is not a number from 0\.5 to 1,000"):
        as_rate(value, "KEY", minimum=0.5, maximum=1000)


def test_a_choice_is_returned():
    assert as_choice("no", "KEY", choices=Answer) is Answer.NO


@pytest.mark.parametrize("value", ["NO", " no", "", None, 0, False, [], ["no"], {}])
def test_another_value_is_no_choice_and_the_choices_are_named(value):
    with pytest.raises(ConfigurationError, match="KEY is not one of yes, no"):
        as_choice(value, "KEY", choices=Answer)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, 0, tzinfo=UTC)),
        ("2026-01-31t12:00:00z", datetime(2026, 1, 31, 12, 0, tzinfo=UTC)),
        ("2026-01-31T12:00:00.5+01:30", datetime(2026, 1, 31, 10, 30, 0, 500_000, tzinfo=UTC)),
    ],
)
def test_a_time_with_an_offset_is_returned_in_utc(text, moment):
    read = as_moment(text, "KEY")

    assert read == moment
    assert read.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "value",
    [
        "2026-01-31T12:00:00", "2026-01-31", "2026-01-31 12:00:00Z", "2026-01-31T12:00Z", "2026-13-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-01-31T12:00:00+99:99", "", None, "soon",
        "２０26-01-31T12:00:00Z", 1769860800,
    ],
)  # fmt: skip
def test_another_value_is_no_time_with_an_offset(value):
    with pytest.raises(ConfigurationError, match="KEY is not a time") as caught:
        as_moment(value, "KEY")

    assert "2026-01-31T12:00:00Z" in caught.value.remedy
