"""Tests of `settings.access_config`."""

from __future__ import annotations

import pytest

from micromegas_jupyter.config.access_config import read_denied, read_listed_keys
from micromegas_jupyter.errors import ConfigurationError


def test_parts_are_read_whatever_stands_beside_them():
    text = '{"colour": 1, "oidc": [], "denied": ["api_key|x", "y"], "api_keys": [{"name": "a", "key": "k"}]}'

    assert read_denied(text) == ("api_key|x", "y")
    assert [key.name for key in read_listed_keys(text)] == ["a"]


@pytest.mark.parametrize("text", ["{}", '{"denied": [], "api_keys": []}'])
def test_what_is_not_there_is_empty(text):
    assert (read_denied(text), read_listed_keys(text)) == ((), ())


@pytest.mark.parametrize("text", ["", "[", "[]", '{"denied": 1, "api_keys": 1}', '{"denied": [""], "api_keys": [{}]}'])
def test_what_is_malformed_is_refused(text):
    for read in (read_denied, read_listed_keys):
        with pytest.raises(ConfigurationError):
            read(text)
