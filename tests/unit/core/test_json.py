"""Tests of `strict_json`."""

import pytest

from micromegas_jupyter.core.text import JsonError, decode_strict_json


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
    ("text", "why"),
    [
        *((text, r"^line \d+, column \d+: |^nested deeper") for text in (
            "", "{", "{}{}", "{'a': 1}", "[1,]", "\ufeff{}", '"a\nb"', '"\\x41"', "undefined", '"' + "[" * 100,
            '"' + "[" * 100 + "\\", '"' + '\\"' * 100 + "{" * 100)),
        *((text, "a name appears twice in one object") for text in (
            '{"a": 1, "a": 1}', '[{"b": {"a": 1, "\\u0061": 2}}]')),
        *((text, "NaN and Infinity are not valid JSON") for text in ("[NaN]", "[Infinity]", "[-Infinity]")),
        *((text, "a number is out of range") for text in ("[1e400]", "[-1e400]", "1" * 5000)),
        *((text, "a lone surrogate") for text in ('"\\ud800"', '{"\\udfff": 1}', '"\ud800"')),
        ("[" * 33 + "]" * 33, "nested deeper than 32"), ('["\\"",' * 33 + "1" + "]" * 33, "nested deeper than 32"),
    ],
)  # fmt: skip
def test_what_is_not_json_or_has_two_readings_is_refused(text, why):
    with pytest.raises(JsonError, match=why):
        decode_strict_json(text)


def test_text_too_deep_for_the_decoder_is_refused_even_without_a_limit():
    assert decode_strict_json("[" * 32 + "]" * 32) is not None
    with pytest.raises(JsonError):
        decode_strict_json("[" * 200_000, max_depth=1_000_000)


def test_the_error_does_not_repeat_the_text():
    with pytest.raises(JsonError) as caught:
        decode_strict_json('{"key": hunter2}')

    assert "hunter2" not in str(caught.value)
