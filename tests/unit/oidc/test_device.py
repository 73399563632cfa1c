from __future__ import annotations

from datetime import timedelta

import pytest

from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import LoginRefused, LoginTimedOut, ProviderMisbehaved, UsageError
from micromegas_jupyter.oidc.device import (
    DeviceAuthorization,
    DevicePending,
    build_device_request,
    build_device_token_request,
    parse_device_answer,
    parse_device_token_error,
)
from tests.fakes.mint import NOW
from tests.fakes.tracebacks import traceback_with_variables

ISSUER = "https://id.example.com"
ANSWER: dict[str, object] = {
    "device_code": "GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS",
    "user_code": "WDJB-MJHT",
    "verification_uri": "https://id.example.com/device",
    "verification_uri_complete": "https://id.example.com/device?user_code=WDJB-MJHT",
    "expires_in": 1800,
    "interval": 7,
}


def parse(*, issuer: str = ISSUER, **changes: object) -> DeviceAuthorization:
    members = {name: value for name, value in {**ANSWER, **changes}.items() if value is not None}
    return parse_device_answer(members, issuer=issuer, now=NOW)


def test_a_start_asks_for_an_id_token_and_for_nothing_that_was_not_given() -> None:
    fields = build_device_request(client_id="app", scope="email", audience=None, resource=None)

    assert fields == {"client_id": "app", "scope": "openid email"}


def test_a_start_names_audience_and_resource() -> None:
    fields = build_device_request(client_id="app", scope="openid", audience="lake", resource="https://lake.example.com")

    assert (fields["audience"], fields["resource"]) == ("lake", "https://lake.example.com")


@pytest.mark.parametrize(("scope", "resource"), [("open  id", None), ("openid", "lake")])
def test_a_start_with_a_malformed_scope_or_resource_is_refused(scope: str, resource: str | None) -> None:
    with pytest.raises(UsageError):
        build_device_request(client_id="app", scope=scope, audience=None, resource=resource)


def test_an_answer_says_what_to_show_and_how_to_ask() -> None:
    assert parse() == DeviceAuthorization(
        device_code=Secret("GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS"),
        user_code="WDJB-MJHT",
        verification_uri="https://id.example.com/device",
        verification_uri_complete="https://id.example.com/device?user_code=WDJB-MJHT",
        expires_at=NOW + timedelta(seconds=1800),
        interval_seconds=7,
    )


def test_the_device_code_is_not_shown() -> None:
    assert "GmRh" not in repr(parse())


@pytest.mark.parametrize(
    ("interval", "seconds"), [(None, 5), (5, 5), (0, 1), (0.25, 1), ("9", 9), (90, 90), (9_999_999, 1800)]
)
def test_the_interval_is_the_provider_s_within_bounds_and_five_seconds_by_default(
    interval: object, seconds: float
) -> None:
    assert parse(interval=interval).interval_seconds == seconds


def test_a_code_lives_for_an_hour_at_most() -> None:
    assert parse(expires_in=86_400).expires_at == NOW + timedelta(hours=1)


def test_the_address_may_have_the_name_that_google_gives_it() -> None:
    found = parse(verification_uri=None, verification_url="https://www.google.com/device")

    assert found.verification_uri == "https://www.google.com/device"


def test_control_characters_are_removed_from_what_a_person_is_shown() -> None:
    found = parse(
        user_code=" \x1b[31mWDJB\r\n-MJHT\u202e ",
        verification_uri="https://id.example.com/\x1bdevice\x00",
        verification_uri_complete="https://id.example.com/device\n?user_code=A",
    )

    assert found.user_code == "[31mWDJB-MJHT"
    assert found.verification_uri == "https://id.example.com/device"
    assert found.verification_uri_complete == "https://id.example.com/device?user_code=A"


@pytest.mark.parametrize(
    "address",
    [
        "http://id.example.com/device",
        "http://127.0.0.1/device",
        "javascript:alert(1)",
        "https://id.example.com@evil.example/device",
        "https://id.example.com/a b",
        "https://\u0456d.example.com/device",
        "https://id.example.com/" + "a" * 2048,
    ],
)
def test_an_address_that_may_not_be_shown_ends_the_sign_in_or_is_left_out_where_it_is_optional(address: str) -> None:
    assert parse(verification_uri_complete=address).verification_uri_complete is None
    with pytest.raises(ProviderMisbehaved):
        parse(verification_uri=address)


def test_a_provider_on_loopback_may_name_an_address_on_loopback() -> None:
    found = parse(issuer="http://127.0.0.1:8080", verification_uri="http://127.0.0.1:8080/device")

    assert found.verification_uri == "http://127.0.0.1:8080/device"


@pytest.mark.parametrize(
    "changes",
    [
        {"device_code": None},
        {"device_code": ""},
        {"device_code": 17},
        {"device_code": "a\nb"},
        {"device_code": "a" * 70_000},
        {"user_code": None},
        {"user_code": 17},
        {"user_code": "\x00\x1b"},
        {"user_code": "A" * 65},
        {"verification_uri": None},
        {"verification_uri": ["https://id.example.com/device"]},
        {"expires_in": None},
        {"expires_in": 0},
        {"expires_in": -1},
        {"expires_in": True},
        {"expires_in": "soon"},
        {"interval": "often"},
        {"interval": -1},
        {"interval": [5]},
    ],
)
def test_an_answer_with_a_missing_or_malformed_member_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ProviderMisbehaved):
        parse(**changes)


UNUSABLE_ANSWERS: dict[str, object] = {
    "a malformed code": {**ANSWER, "device_code": "s3same\n"},
    "no address": {**ANSWER, "device_code": "s3same", "verification_uri": None},
    "no object": ["s3same"],
}


@pytest.mark.parametrize("name", UNUSABLE_ANSWERS)
def test_a_refusal_shows_nothing_of_the_device_code_not_even_with_all_variables(name: str) -> None:
    with pytest.raises(ProviderMisbehaved) as caught:
        parse_device_answer(UNUSABLE_ANSWERS[name], issuer=ISSUER, now=NOW)

    shown = traceback_with_variables(caught.value)
    assert "resource = None" in shown
    assert "s3same" not in shown


@pytest.mark.parametrize("body", [None, [], "text"])
def test_an_answer_that_is_no_object_is_refused(body: object) -> None:
    with pytest.raises(ProviderMisbehaved):
        parse_device_answer(body, issuer=ISSUER, now=NOW)


def test_a_question_carries_the_device_code() -> None:
    assert build_device_token_request(parse()) == {
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "device_code": Secret("GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS"),
    }


def test_a_question_repeats_the_resource_that_was_asked_for() -> None:
    authorization = parse_device_answer(ANSWER, issuer=ISSUER, now=NOW, resource="https://lake.example.com")

    assert build_device_token_request(authorization)["resource"] == "https://lake.example.com"


@pytest.mark.parametrize(("code", "slow_down"), [("authorization_pending", False), ("slow_down", True)])
def test_a_person_who_is_not_done_is_waited_for(code: str, slow_down: bool) -> None:
    assert parse_device_token_error({"error": code}) == DevicePending(slow_down=slow_down)


@pytest.mark.parametrize(("code", "expected"), [("access_denied", LoginRefused), ("expired_token", LoginTimedOut)])
def test_a_refusal_and_an_old_code_end_the_sign_in(code: str, expected: type[Exception]) -> None:
    found = parse_device_token_error({"error": code})

    assert type(found) is expected


@pytest.mark.parametrize("body", [{"error": "invalid_grant"}, {"error": ["slow_down"]}, {}, None, "slow_down"])
def test_every_other_error_is_left_to_the_rules_of_token_requests(body: object) -> None:
    assert parse_device_token_error(body) is None
