"""Tests of `settings.client_config`."""

from __future__ import annotations

import json

import pytest

from micromegas_jupyter.config.client_config import Profile, is_profile_name, parse_profile
from micromegas_jupyter.errors import ConfigurationError

FLAT = {"uri": "grpc://h:1", "issuers": [{"issuer": "https://id.example.com"}, {"issuer": "https://second.example"}]}
PROFILES = {"default_profile": "production", "profiles": {"production": FLAT, "robot": {"api_key_file": "~/key"}}}


def parse(config: object = None, profile: str | None = None, **environ: str) -> Profile:
    text = None if config is None else json.dumps(config)
    return parse_profile(environ, config_text=text, asked_for=profile)


def test_without_a_file_nothing_is_set():
    profile = parse()

    assert (profile.name, profile.members.values, profile.issuer.values) == (None, {}, {})


def test_the_flat_file_is_read_with_its_first_issuer():
    profile = parse(FLAT)

    assert profile.name is None
    assert profile.members.values["uri"] == "grpc://h:1"
    assert profile.issuer.values == {"issuer": "https://id.example.com"}


def test_a_default_profile_beside_a_flat_file_is_ignored():
    assert parse({**FLAT, "default_profile": "x"}).name is None


@pytest.mark.parametrize(
    ("argument", "variable", "name", "origin"),
    [
        (None, "", "production", "config.json: default_profile"),
        (None, "robot", "robot", "MICROMEGAS_PROFILE"),
        ("production", "robot", "production", "the profile argument"),
        ("", "robot", "robot", "MICROMEGAS_PROFILE"),
    ],
)
def test_the_argument_wins_over_the_variable_and_that_over_the_default_profile(argument, variable, name, origin):
    profile = parse(PROFILES, argument, MICROMEGAS_PROFILE=variable)

    assert (profile.name, profile.origin) == (name, origin)


def test_each_place_is_named_as_it_stands_in_the_file():
    assert (parse(FLAT).members.place, parse(FLAT).issuer.place) == ("config.json: ", "config.json: issuers[0].")
    assert parse(PROFILES).members.place == "config.json: profiles.production."
    assert parse(PROFILES).issuer.place == "config.json: profiles.production.issuers[0]."


def test_what_is_null_counts_as_not_there():
    profile = parse({"uri": None, "issuers": [{"issuer": None}]})

    assert (profile.members.values.keys(), profile.issuer.values) == ({"issuers"}, {})
    assert parse({"issuers": None}).issuer.values == {}


@pytest.mark.parametrize(
    ("config", "argument", "environ", "key"),
    [
        ([], None, {}, "config.json"),
        ({"issuers": {}}, None, {}, "config.json: issuers"),
        ({"issuers": []}, None, {}, "issuers"),
        ({"issuers": ["https://id.example.com"]}, None, {}, "config.json: issuers[0]"),
        ({"profiles": []}, None, {}, "config.json: profiles"),
        ({"profiles": None}, None, {}, "config.json: profiles"),
        ({"profiles": {"a": {}}}, None, {}, "default_profile"),
        ({"profiles": {}}, None, {}, "default_profile"),
        ({"profiles": {"a": {}}, "default_profile": 5}, None, {}, "config.json: default_profile"),
        ({"profiles": {"a": {}}, "default_profile": "b"}, None, {}, "profiles"),
        ({"profiles": {"a/b": {}}, "default_profile": "a/b"}, None, {}, "profiles"),
        ({"profiles": {"..": {}}, "default_profile": ".."}, None, {}, "profiles"),
        ({"profiles": {"a": []}, "default_profile": "a"}, None, {}, "config.json: profiles.a"),
        (PROFILES, "other", {}, "profiles"),
        (PROFILES, "../robot", {}, "profile"),
        (PROFILES, "..", {}, "profile"),
        (PROFILES, "x" * 65, {}, "profile"),
        (FLAT, "production", {}, "profiles"),
        (None, "production", {}, "profiles"),
        (None, None, {"MICROMEGAS_PROFILE": "production"}, "profiles"),
        (PROFILES, None, {"MICROMEGAS_PROFILE": "../robot"}, "profile"),
    ],
)
def test_what_is_malformed_is_refused_by_its_name(config, argument, environ, key):
    with pytest.raises(ConfigurationError) as caught:
        parse(config, argument, **environ)

    assert caught.value.key == key


def test_a_file_that_is_not_json_is_refused():
    with pytest.raises(ConfigurationError, match=r"config\.json is not valid JSON"):
        parse_profile({}, config_text="{", asked_for=None)


def test_a_file_without_profiles_says_where_to_add_one():
    with pytest.raises(ConfigurationError, match=r"Add it to config\.json, or name no profile\."):
        parse(FLAT, "production")


def test_the_error_lists_the_profiles_that_can_be_chosen():
    with pytest.raises(ConfigurationError, match=r"it has: production, robot\."):
        parse(PROFILES, "other")


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("work", True), ("a.b-c_1", True), ("", False), (".", False), ("..", False), ("a b", False), ("x" * 65, False)],
)
def test_a_name_of_a_profile_is_fit_for_a_file_name(name, is_one):
    assert is_profile_name(name) is is_one
