"""Tests of `oidc.device`: what a provider answers to a device, and what of it a person is shown."""

from datetime import timedelta

import pytest

from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import LoginRefused, LoginTimedOut, ProviderMisbehaved
from micromegas_jupyter.oidc import device
from micromegas_jupyter.oidc.device import DevicePending, parse_device_answer, parse_device_token_error
from tests.fakes.mint import NOW
from tests.fakes.tracebacks import traceback_with_variables

ISSUER = "https://id.example.com"
CODE = "GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS"
ANSWER = {
    "device_code": CODE, "user_code": "WDJB-MJHT", "verification_uri": "https://id.example.com/device",
    "verification_uri_complete": "https://id.example.com/device?user_code=WDJB-MJHT", "expires_in": 1800,
    "interval": 7,
}  # fmt: skip


def parse(*, issuer=ISSUER, **changes):
    members = {name: value for name, value in {**ANSWER, **changes}.items() if value is not None}
    return parse_device_answer(members, issuer=issuer, now=NOW)


def test_a_start_names_audience_and_resource_and_a_question_repeats_the_resource():
    resource = "https://lake.example.com"
    fields = device.build_device_request(client_id="app", scope="email", audience="lake", resource=resource)
    started = parse_device_answer(ANSWER, issuer=ISSUER, now=NOW, resource=resource)

    assert fields == {"client_id": "app", "scope": "openid email", "audience": "lake", "resource": resource}
    assert device.build_device_token_request(started) == {
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "device_code": Secret(CODE),
        "resource": resource,
    }


def test_an_answer_says_what_to_show_and_how_to_ask():
    assert parse() == device.DeviceAuthorization(
        device_code=Secret(CODE), user_code="WDJB-MJHT", verification_uri="https://id.example.com/device",
        verification_uri_complete="https://id.example.com/device?user_code=WDJB-MJHT",
        expires_at=NOW + timedelta(seconds=1800), interval_seconds=7,
    )  # fmt: skip
    assert "GmRh" not in repr(parse())
    assert parse(expires_in=86_400).expires_at == NOW + timedelta(hours=1)
    google = parse(verification_uri=None, verification_url="https://www.google.com/device")
    assert google.verification_uri == "https://www.google.com/device"
    local = parse(issuer="http://127.0.0.1:8080", verification_uri="http://127.0.0.1:8080/device")
    assert local.verification_uri == "http://127.0.0.1:8080/device"


@pytest.mark.parametrize(
    ("interval", "seconds"), [(None, 5), (5, 5), (0, 1), (0.25, 1), ("9", 9), (90, 90), (9_999_999, 1800)]
)
def test_the_interval_is_the_provider_s_within_bounds_and_five_seconds_by_default(interval, seconds):
    assert parse(interval=interval).interval_seconds == seconds


def test_control_characters_are_removed_from_what_a_person_is_shown():
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
        "http://id.example.com/device", "http://127.0.0.1/device", "javascript:alert(1)",
        "https://id.example.com@evil.example/device", "https://id.example.com/a b",
        "https://\u0456d.example.com/device", "https://id.example.com/" + "a" * 2048,
    ],
)  # fmt: skip
def test_an_address_that_may_not_be_shown_ends_the_sign_in_or_is_left_out_where_it_is_optional(address):
    assert parse(verification_uri_complete=address).verification_uri_complete is None
    with pytest.raises(ProviderMisbehaved):
        parse(verification_uri=address)


@pytest.mark.parametrize(
    "changes",
    [
        *({"device_code": code} for code in (None, "", 17, "a\nb", "a" * 70_000)),
        *({"user_code": code} for code in (None, 17, "\x00\x1b", "A" * 65)),
        *({"verification_uri": address} for address in (None, ["https://id.example.com/device"])),
        *({"expires_in": seconds} for seconds in (None, 0, -1, True, "soon")),
        *({"interval": seconds} for seconds in ("often", -1, [5])),
    ],
)
def test_an_answer_with_a_missing_or_malformed_member_is_refused(changes):
    with pytest.raises(ProviderMisbehaved):
        parse(**changes)


@pytest.mark.parametrize(
    "body",
    [{**ANSWER, "device_code": "s3same\n"}, {**ANSWER, "device_code": "s3same", "verification_uri": None}, ["s3same"]],
)
def test_a_refusal_shows_nothing_of_the_device_code_not_even_with_all_variables(body):
    with pytest.raises(ProviderMisbehaved) as caught:
        parse_device_answer(body, issuer=ISSUER, now=NOW)

    shown = traceback_with_variables(caught.value)
    assert "resource = None" in shown
    assert "s3same" not in shown


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": "access_denied"}, LoginRefused),
        ({"error": "expired_token"}, LoginTimedOut),
        ({"error": "authorization_pending"}, DevicePending),
        *((body, type(None)) for body in ({"error": "invalid_grant"}, {"error": ["slow_down"]}, {}, None, "slow_down")),
    ],
)
def test_each_refused_question_has_its_meaning(body, expected):
    assert type(parse_device_token_error(body)) is expected
    assert parse_device_token_error({"error": "slow_down"}) == DevicePending(slow_down=True)
