"""Tests of `settings.issuer_config`."""

import pytest

from micromegas_jupyter.config.issuer_config import as_claim_paths, as_required_claims, as_subjects
from micromegas_jupyter.errors import ConfigurationError


@pytest.mark.parametrize("subjects", [["alice"], ["repo:o/r:*", "system:serviceaccount:ns:name"]])
def test_whole_subjects_and_beginnings_are_accepted(subjects):
    assert as_subjects(subjects, "KEY") == tuple(subjects)


@pytest.mark.parametrize("subject", ["*", "**", "repo:*:main", "*:main"])
def test_a_star_that_would_mean_everybody_or_a_pattern_is_refused(subject):
    with pytest.raises(ConfigurationError, match="a star stands only at the end") as caught:
        as_subjects(["alice", subject], "KEY")

    assert caught.value.key == "KEY"


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        ("groups", (("groups",),)),
        ("https://example.com/roles", (("https://example.com/roles",),)),
        ("cognito:groups", (("cognito:groups",),)),
        ("realm_access.roles", (("realm_access.roles",),)),
        (["realm_access", "roles"], (("realm_access", "roles"),)),
        ([["realm_access", "roles"], ["groups"]], (("realm_access", "roles"), ("groups",))),
    ],
)
def test_group_claims_are_one_name_one_path_or_several_paths(value, paths):
    assert as_claim_paths(value, "KEY") == paths


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (None, "KEY"),
        ("", "KEY"),
        ({}, "KEY"),
        ([], "KEY"),
        ([[]], "KEY[0]"),
        ([5], "KEY[0]"),
        ([["a"], "b"], "KEY[1]"),
        ([["a", ""]], "KEY[0][1]"),
        (["a"] * 9, "KEY"),
        ([["a"]] * 17, "KEY"),
    ],
)
def test_another_value_is_no_group_claim(value, key):
    with pytest.raises(ConfigurationError) as caught:
        as_claim_paths(value, "KEY")

    assert caught.value.key == key


def test_required_claims_have_one_value_or_several():
    assert as_required_claims({"hd": "example.com", "level": [2, 3], "active": True}, "KEY") == {
        "hd": ("example.com",),
        "level": (2, 3),
        "active": (True,),
    }


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (None, "KEY"),
        ([], "KEY"),
        ({"": "a"}, "KEY"),
        ({"hd": None}, "KEY.hd"),
        ({"hd": ""}, "KEY.hd"),
        ({"hd": 1.5}, "KEY.hd"),
        ({"hd": {}}, "KEY.hd"),
        ({"hd": []}, "KEY.hd"),
        ({"hd": ["a", []]}, "KEY.hd[1]"),
        ({"hd": ["a"] * 10_001}, "KEY.hd"),
    ],
)
def test_another_value_is_no_required_claim(value, key):
    with pytest.raises(ConfigurationError) as caught:
        as_required_claims(value, "KEY")

    assert caught.value.key == key
