"""What a program's token says about it."""

import json
from datetime import UTC, datetime

import pytest

from micromegas_jupyter.cli.identity_lines import ServiceFacts, service_facts
from tests.fakes.mint import ec_key, mint_raw

CLAIMS = {"iss": "https://id.example.com", "sub": "1234", "exp": 1_800_000_000}


def _token(**claims):
    kept = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not None}
    return mint_raw(json.dumps(kept).encode(), key=ec_key())


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"email": "robot@lake.example.com", "azp": "9876"}, "robot@lake.example.com"),
        ({"client_id": "robot", "azp": "9876"}, "robot"),
        ({"azp": "robot"}, "robot"),
        ({"appid": "robot"}, "robot"),
        ({}, "1234"),
        ({"sub": None}, None),
        ({"email": 5}, "1234"),
    ],
)
def test_a_program_is_called_by_what_says_most(claims, expected):
    assert service_facts(_token(**claims)).name == expected


def test_provider_and_end_are_told():
    facts = service_facts(_token())

    assert facts.issuer == "https://id.example.com"
    assert facts.expires_at == datetime.fromtimestamp(1_800_000_000, UTC)


def test_a_token_without_an_end_has_none():
    assert service_facts(_token(exp=None)).expires_at is None


def test_control_characters_do_not_reach_the_terminal():
    assert service_facts(_token(email="a\x1b[2Jb@example.com")).name == "a[2Jb@example.com"


@pytest.mark.parametrize("token", ["opaque", "a.b.c", ""])
def test_a_token_that_is_no_jwt_says_nothing(token):
    assert service_facts(token) == ServiceFacts()
