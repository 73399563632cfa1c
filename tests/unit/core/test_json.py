"""Tests of `strict_json`."""

import pytest

from micromegas_jupyter.core.json import JsonError, decode_strict_json


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{}", {}), (' {"a" : [1, -2.5e3, true, null, "x"]} ', {"a": [1, -2500.0, True, None, "x"]}),
        ('"\\ud83d\\ude00"', "\U0001f600"), ('"\\u00e9\u00e9"', "éé"),
        ('{"a": {"a": 1}, "b": {"a": 1}}', {"a": {"a": 1}, "b": {"a": 1}}), ('"' + "[" * 100 + '"', "[" * 100),
        ('["\\"' + "[{" * 50 + '\\\\"]', ['"' + "[{" * 50 + "\\"]), ("[" + "[]," * 99 + "[]]", [[]] * 100),
    ],
)  # fmt: skip
def test_json_with_one_meaning_is_decoded(text, value):
    assert decode_strict_json(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "{}{}", "{'a': 1}", "[1,]", "\ufeff{}", '"a\nb"', '"\\x41"', "undefined", '"' + "[" * 100,
        '"' + "[" * 100 + "\\", '"' + '\\"' * 100 + "{" * 100,
    ],
)  # fmt: skip
def test_what_is_not_json_is_refused_with_its_place(text):
    with pytest.raises(JsonError, match=r"^line \d+, column \d+: |^nested deeper"):
        decode_strict_json(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a": 1, "a": 1}', "a name appears twice in one object"),
        ('[{"b": {"a": 1, "\\u0061": 2}}]', "a name appears twice in one object"),
        ("[NaN]", "NaN and Infinity are not JSON"), ("[Infinity]", "NaN and Infinity are not JSON"),
        ("[-Infinity]", "NaN and Infinity are not JSON"), ("[1e400]", "a number out of range"),
        ("[-1e400]", "a number out of range"), ("1" * 5000, "a number out of range"),
        ('"\\ud800"', "half of a surrogate pair"), ('{"\\udfff": 1}', "half of a surrogate pair"),
        ('"\ud800"', "half of a surrogate pair"),
    ],
)  # fmt: skip
def test_json_with_two_readings_is_refused(text, why):
    with pytest.raises(JsonError) as caught:
        decode_strict_json(text)

    assert caught.value.args == (why,)


def test_32_levels_are_read_and_33_are_not():
    assert decode_strict_json("[" * 32 + "]" * 32) is not None
    with pytest.raises(JsonError, match="nested deeper than 32"):
        decode_strict_json("[" * 33 + "]" * 33)


def test_levels_hidden_between_texts_are_counted():
    with pytest.raises(JsonError, match="nested deeper than 32"):
        decode_strict_json('["\\"",' * 33 + "1" + "]" * 33)


def test_text_too_deep_for_the_decoder_is_refused_even_without_a_limit():
    with pytest.raises(JsonError):
        decode_strict_json("[" * 200_000, max_depth=1_000_000)


def test_the_error_does_not_repeat_the_text():
    with pytest.raises(JsonError) as caught:
        decode_strict_json('{"key": hunter2}')

    assert "hunter2" not in str(caught.value)
