"""Tests of `settings.decoding`."""

import pytest

from micromegas_jupyter.config.decoding import Members, as_text
from micromegas_jupyter.errors import ConfigurationError

MEMBERS = Members(values={"name": "grafana", "empty": ""}, place="KEYS[0]")


def test_a_member_is_read():
    assert MEMBERS.read("name", as_text, None) == "grafana"
    assert MEMBERS.require("name", as_text) == "grafana"


def test_a_member_that_is_not_there_has_its_default():
    assert MEMBERS.read("other", as_text, "default") == "default"


def test_a_refusal_names_the_members_place():
    with pytest.raises(ConfigurationError) as caught:
        MEMBERS.read("empty", as_text, None)

    assert caught.value.key == "KEYS[0].empty"


def test_a_required_member_that_is_not_there_is_refused():
    with pytest.raises(ConfigurationError, match=r"KEYS\[0\]\.other is missing") as caught:
        MEMBERS.require("other", as_text)

    assert caught.value.key == "KEYS[0].other"


def test_it_says_whether_a_member_is_there():
    assert "name" in MEMBERS
    assert "other" not in MEMBERS
