"""Each reader accepts what it is for, and refuses anything else with an error that names the key."""

import enum
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from micromegas_jupyter.config.decoding import (
    Members,
    as_choice,
    as_count,
    as_flag,
    as_list,
    as_named,
    as_object,
    as_rate,
    as_text,
    as_text_or_texts,
    as_texts,
    as_time,
    decode_setting,
)
from micromegas_jupyter.errors import ConfigurationError


class Answer(enum.StrEnum):
    YES = "yes"
    NO = "no"


one_to_ten = partial(as_count, maximum=10)
rate = partial(as_rate, minimum=0.5, maximum=1000)
answer = partial(as_choice, choices=Answer)


@pytest.mark.parametrize(
    ("reader", "values"),
    [
        (as_object, [{}, {"a": 1}]),
        (as_list, [[], [1]]),
        (as_text, ["a", "Zoë läke", " a "]),
        (one_to_ten, [1, 10]),
        (partial(as_count, minimum=0, maximum=60), [0, 60]),
        (rate, [0.5, 1, 1000.0]),
        (answer, [Answer.YES, "no"]),
        (as_flag, [True, False]),
        (as_named, [{"a name": 1}]),
    ],
)
def test_what_fits_is_returned(reader, values):
    for value in values:
        assert reader(value, "KEY") == value


@pytest.mark.parametrize(
    ("reader", "values"),
    [
        (as_object, [None, [], "x", 1]),
        (as_list, [None, {}, "x", 1]),
        (as_text, [None, 5, [], "", "  ", "a\nb", "\x1b[31m", "\u2028", "\ud800"]),
        (one_to_ten, [0, 11, -1, 1.0, True, "5", None]),
        (rate, [0.4, 1000.1, -1, True, "1", None, float("nan"), float("inf"), 10**400]),
        (answer, ["NO", " no", "", None, 0, False, [], ["no"], {}]),
        (as_flag, [0, 1, "true", None, []]),
        (as_named, [{"": 1}, {" ": 1}, {"a\nb": 1}, {"x" * 257: 1}, {str(number): 1 for number in range(10_001)}]),
    ],
)
def test_what_does_not_fit_is_refused_by_the_key(reader, values):
    for value in values:
        with pytest.raises(ConfigurationError, match=r"\AKEY (is not|has) ") as caught:
            reader(value, "KEY")
        assert caught.value.key == "KEY"


@pytest.mark.parametrize("text", ["", "{", "secret", '{"secret": 1, "secret": 2}', "[NaN]", "[secret]"])
def test_text_that_is_not_json_is_an_error_that_does_not_repeat_it(text):
    with pytest.raises(ConfigurationError) as caught:
        decode_setting(text, "KEY")

    assert caught.value.key == "KEY"
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("text", [" " * (16 * 2**20 + 1), "ä" * (8 * 2**20 + 1)], ids=["characters", "bytes"])
def test_a_text_longer_than_the_limit_is_not_decoded(text):
    assert decode_setting('{"a": [1]}', "KEY") == {"a": [1]}
    with pytest.raises(ConfigurationError, match="KEY is longer than 16 MiB"):
        decode_setting(text, "KEY")


def test_an_unknown_name_is_shown_cut_and_escaped_with_the_known_ones():
    with pytest.raises(ConfigurationError, match="unknown name") as caught:
        as_object({"\n" * 1000: 1}, "KEY", known=frozenset({"issuer", "audience"}))

    assert caught.value.remedy == "Known names: audience, issuer."
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "key"),
    [("a", "KEY"), ({}, "KEY"), (None, "KEY"), ([], "KEY"), (["a", ""], "KEY[1]"), (["a"] * 10_001, "KEY")],
)
def test_another_value_is_no_list_of_texts(value, key):
    with pytest.raises(ConfigurationError) as caught:
        as_texts(value, "KEY")

    assert caught.value.key == key


@pytest.mark.parametrize(("value", "texts"), [("a", ("a",)), (["b", "a"], ("b", "a"))])
def test_one_text_may_stand_for_a_list_of_one(value, texts):
    assert as_text_or_texts(value, "KEY") == texts


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, 0, tzinfo=UTC)),
        ("2026-01-31t12:00:00z", datetime(2026, 1, 31, 12, 0, tzinfo=UTC)),
        ("2026-01-31T12:00:00.5+01:30", datetime(2026, 1, 31, 10, 30, 0, 500_000, tzinfo=UTC)),
    ],
)
def test_a_time_with_an_offset_is_returned_in_utc(text, time):
    read = as_time(text, "KEY")

    assert (read, read.utcoffset()) == (time, timedelta(0))


@pytest.mark.parametrize(
    "value",
    [
        "2026-01-31T12:00:00", "2026-01-31", "2026-01-31 12:00:00Z", "2026-01-31T12:00Z", "2026-13-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-01-31T12:00:00+99:99", "", None, "soon",
        "２０26-01-31T12:00:00Z", 1769860800,
    ],
)  # fmt: skip
def test_another_value_is_no_time_with_an_offset(value):
    with pytest.raises(ConfigurationError, match="KEY is not a time"):
        as_time(value, "KEY")


def test_a_member_is_read_and_refused_by_its_path():
    members = Members(values={"name": "grafana", "empty": ""}, place="KEYS[0]")

    assert members.require("name", as_text) == "grafana"
    assert members.read("other", as_text, "default") == "default"
    for call in (lambda: members.read("empty", as_text, None), lambda: members.require("other", as_text)):
        with pytest.raises(ConfigurationError, match=r"KEYS\[0\]\.") as caught:
            call()
        assert caught.value.key in {"KEYS[0].empty", "KEYS[0].other"}
