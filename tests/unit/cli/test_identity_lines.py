"""The lines about who is signed in."""

from datetime import timedelta

import pytest

from micromegas_jupyter.auth import Identity, OidcAuthProvider
from micromegas_jupyter.cli.identity_lines import (
    host_text,
    identity_line,
    server_line,
    service_line,
    signed_in_line,
    time_left,
)
from micromegas_jupyter.client.calls import ServerIdentity
from tests.fakes.scripted_provider import ScriptedProvider


def _identity(clock, **changes):
    values = {
        "subject": "alice-1",
        "name": "Alice Martin",
        "email": "alice@example.com",
        "issuer": "https://id.example.com/realms/lake",
        "expires_at": clock.now() + timedelta(minutes=58, seconds=12),
        "renews": True,
    }
    return Identity(**{**values, **changes})


def test_a_person_is_named_with_address_provider_and_time(clock):
    line = identity_line(_identity(clock), now=clock.now())

    assert line == "Alice Martin <alice@example.com> · id.example.com · token valid 58 min, renews by itself"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": None}, "alice@example.com · id.example.com"),
        ({"name": None, "email": None}, "alice-1 · id.example.com"),
        ({"email": None}, "Alice Martin · id.example.com"),
    ],
)
def test_who_has_no_name_is_called_by_what_there_is(clock, changes, expected):
    assert identity_line(_identity(clock, **changes), now=clock.now()).startswith(f"{expected} · ")


def test_a_token_that_is_not_renewed_is_not_said_to_be(clock):
    assert identity_line(_identity(clock, renews=False), now=clock.now()).endswith("token valid 58 min")


def test_a_program_is_named_as_one(clock):
    line = service_line(
        "robot@lake", issuer="https://id.example.com", expires_at=clock.now() + timedelta(minutes=5), now=clock.now()
    )

    assert line == "robot@lake (service account) · id.example.com · token valid 5 min, renews by itself"


def test_a_programs_token_of_unknown_life_has_none_to_show(clock):
    line = service_line("robot", issuer="https://id.example.com", expires_at=None, now=clock.now())

    assert line == "robot (service account) · id.example.com"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "token expired"),
        (-5, "token expired"),
        (45, "token valid 45 s"),
        (60, "token valid 1 min"),
        (7199, "token valid 119 min"),
        (36_240, "token valid 10 h 4 min"),
    ],
)
def test_time_left_is_told_in_the_unit_that_fits(clock, seconds, expected):
    assert time_left(clock.now() + timedelta(seconds=seconds), clock.now()) == expected


def test_the_server_line_names_server_caller_and_time():
    identity = ServerIdentity(
        subject="alice-1", email="alice@example.com", issuer="https://id.example.com", auth_type="oidc", is_admin=True
    )

    line = server_line("grpc+tls://lake.example.com:50051", identity, 14.2)

    assert line == "server lake.example.com:50051 knows you as alice@example.com (admin) · 14 ms"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://id.example.com:8443/x", "id.example.com:8443"),
        ("https://user:password@id.example.com", "id.example.com"),
        ("not an address", "not an address"),
    ],
)
def test_an_address_is_shown_as_its_host_and_port(address, expected):
    assert host_text(address) == expected


def test_a_sign_in_that_worked_says_whose_it_is(clock):
    idp = ScriptedProvider(clock=clock)
    provider = OidcAuthProvider(idp.issuer, "notebook", token=idp.stored_token(ends_in_seconds=3600), clock=clock)

    assert signed_in_line(provider, now=clock.now()).startswith("Signed in as Alice Example <alice@example.com> · ")


def test_a_sign_in_whose_tokens_name_nobody_worked_all_the_same(clock):
    token = {"access_token": "opaque", "token_type": "Bearer", "refresh_token": "r"}
    provider = OidcAuthProvider("https://id.example.com", "notebook", token=token, clock=clock)

    assert signed_in_line(provider, now=clock.now()) == "Signed in."
