"""Tests of `settings.client_config`."""

from __future__ import annotations

import pytest

from micromegas_jupyter.config.client_config import Part, SettingReader
from micromegas_jupyter.config.decoding import as_text
from micromegas_jupyter.errors import ConfigurationError

PART = Part(values={"uri": "of the file", "token_storage": "file"}, place="config.json: ")


def test_a_variable_wins_over_the_file_and_is_named_as_the_origin():
    reader = SettingReader({"URI": "of the environment"})

    value = reader.read("uri", as_text, variable="URI", part=PART)

    assert value == "of the environment"
    assert reader.origins == {"uri": "URI"}


@pytest.mark.parametrize("environ", [{}, {"URI": ""}])
def test_without_the_variable_or_with_an_empty_one_the_file_counts(environ):
    reader = SettingReader(environ)

    value = reader.read("uri", as_text, variable="URI", part=PART)

    assert value == "of the file"
    assert reader.origins == {"uri": "config.json: uri"}


def test_a_member_can_have_another_name_than_the_field():
    reader = SettingReader({})

    reader.read("storage", as_text, part=PART, member="token_storage")

    assert reader.origins == {"storage": "config.json: token_storage"}


def test_what_is_not_set_is_none_and_has_no_origin():
    reader = SettingReader({})

    assert reader.read("flow", as_text, variable="FLOW", part=PART) is None
    assert reader.origins == {}


def test_a_variable_is_not_looked_for_in_the_file():
    assert SettingReader({}).read("uri", as_text, variable="OTHER") is None


def test_a_refusal_names_the_place():
    with pytest.raises(ConfigurationError) as caught:
        SettingReader({"URI": "a\nb"}).read("uri", as_text, variable="URI", part=PART)

    assert caught.value.key == "URI"
