from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.errors import (
    LoginFailed,
    LoginRefused,
    LoginTimedOut,
    MicromegasError,
    ProviderMisbehaved,
    ProviderUnavailable,
)
from micromegas_jupyter.oidc.device import DeviceAuthorization, DevicePending
from micromegas_jupyter.oidc.tokens import TokenSet
from tests.fakes.scripted_provider import DirectCalls, Reply, ScriptedProvider

if TYPE_CHECKING:
    from tests.fakes.clock import FakeClock

RESOURCE = "https://lake.example.com"


@pytest.fixture
def connection(idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock) -> ProviderConnection:
    return ProviderConnection(idp.issuer, "notebook", None, http=calls, clock=clock)


def start(connection: ProviderConnection) -> DeviceAuthorization:
    return connection.start_device(scope="email", audience="lake", resource=RESOURCE)


def ask(connection: ProviderConnection, authorization: DeviceAuthorization) -> TokenSet | DevicePending:
    return connection.poll_device(authorization, scope="openid email")


def test_a_device_sign_in_gives_tokens_once_the_person_has_typed_the_code(
    connection: ProviderConnection, idp: ScriptedProvider, clock: FakeClock
) -> None:
    authorization = start(connection)
    before = ask(connection, authorization)
    idp.device.decide(authorization.user_code)
    clock.advance(5)
    tokens = ask(connection, authorization)

    assert before == DevicePending()
    assert isinstance(tokens, TokenSet)
    assert tokens.id_token is not None
    assert tokens.scope == "openid email"


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_a_client_with_a_secret_names_itself_in_the_form_as_well(
    method: str, idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock
) -> None:
    idp.client_secret = "s3same"
    idp.metadata_changes["token_endpoint_auth_methods_supported"] = [method]
    connection = ProviderConnection(idp.issuer, "notebook", Secret("s3same"), http=calls, clock=clock)

    start(connection)

    request = idp.seen("/device_authorization")[0]
    assert request.form["client_id"] == "notebook"
    assert ("authorization" in request.headers) is (method == "client_secret_basic")


def test_a_public_client_names_itself_when_it_starts_a_device_sign_in(
    connection: ProviderConnection, idp: ScriptedProvider
) -> None:
    authorization = start(connection)
    ask(connection, authorization)

    assert idp.seen("/device_authorization")[0].form == {
        "client_id": "notebook",
        "scope": "openid email",
        "audience": "lake",
        "resource": RESOURCE,
    }
    assert idp.seen("/token")[0].form == {
        "client_id": "notebook",
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "device_code": authorization.device_code.reveal(),
        "resource": RESOURCE,
    }


def test_a_device_code_ends_by_this_machine_s_clock(
    connection: ProviderConnection, idp: ScriptedProvider, clock: FakeClock
) -> None:
    idp.device.lifetime_seconds = 90
    connection.assume_clock_offset(300)

    assert (start(connection).expires_at - clock.now()).total_seconds() == 90


def test_asking_too_fast_is_told_from_waiting(connection: ProviderConnection) -> None:
    authorization = start(connection)
    ask(connection, authorization)

    assert ask(connection, authorization) == DevicePending(slow_down=True)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("access_denied", LoginRefused),
        ("expired_token", LoginTimedOut),
        ("invalid_grant", LoginFailed),
        ("server_error", ProviderUnavailable),
        (17, ProviderMisbehaved),
    ],
)
def test_a_device_sign_in_ends_in_the_error_of_its_own(
    error: object, expected: type[MicromegasError], connection: ProviderConnection, idp: ScriptedProvider
) -> None:
    authorization = start(connection)
    idp.reply_once("/token", Reply(status=400, body={"error": error}))

    with pytest.raises(MicromegasError) as caught:
        ask(connection, authorization)

    assert type(caught.value) is expected


def test_a_provider_without_a_device_endpoint_says_how_to_sign_in_instead(
    connection: ProviderConnection, idp: ScriptedProvider
) -> None:
    idp.metadata_changes["device_authorization_endpoint"] = None

    with pytest.raises(ProviderMisbehaved) as caught:
        start(connection)

    assert "browser" in caught.value.remedy


def test_a_device_sign_in_that_the_provider_does_not_start_has_failed(
    connection: ProviderConnection, idp: ScriptedProvider
) -> None:
    idp.reply_once("/device_authorization", Reply(status=400, body={"error": "unauthorized_client"}))

    with pytest.raises(LoginFailed):
        start(connection)


@pytest.mark.parametrize("change", [{"id_token": None}, {"id_token": "eyJhbGciOiJub25lIn0.e30."}])
def test_device_tokens_with_a_missing_or_unsigned_id_token_are_refused(
    change: dict[str, object], connection: ProviderConnection, idp: ScriptedProvider
) -> None:
    authorization = start(connection)
    idp.reply_once("/token", Reply(body={**idp.issue(), **change}))

    with pytest.raises(ProviderMisbehaved):
        ask(connection, authorization)


def dated(idp: ScriptedProvider, clock: FakeClock, ahead: timedelta) -> Reply:
    """A token answer of a provider whose clock is `ahead` of this machine's."""
    seconds = int((clock.now() + ahead).timestamp())
    answer = idp.issue()
    answer["id_token"] = idp.mint_id_token(iat=seconds, exp=seconds + 300)
    return Reply(body=answer, headers={"Date": format_datetime(clock.now() + ahead, usegmt=True)})


@pytest.mark.parametrize("hours", [-23, -1, 1, 23])
def test_an_id_token_is_held_against_the_provider_s_time(
    hours: int, connection: ProviderConnection, idp: ScriptedProvider, clock: FakeClock
) -> None:
    authorization = start(connection)
    idp.reply_once("/token", dated(idp, clock, timedelta(hours=hours)))

    tokens = ask(connection, authorization)

    assert isinstance(tokens, TokenSet)
    assert tokens.obtained_at == connection.now()
    assert connection.clock_offset_seconds == pytest.approx(hours * 3600, abs=1)


@pytest.mark.parametrize(("days", "side"), [(3, "behind"), (-3, "ahead of")])
def test_a_clock_that_is_days_off_is_not_believed_away(
    days: int, side: str, connection: ProviderConnection, idp: ScriptedProvider, clock: FakeClock
) -> None:
    authorization = start(connection)
    idp.reply_once("/token", dated(idp, clock, timedelta(days=days)))

    with pytest.raises(ProviderMisbehaved) as caught:
        ask(connection, authorization)

    assert f"about 3 days {side}" in caught.value.remedy
    assert "Set the clock" in caught.value.remedy


def test_an_old_id_token_is_refused_whatever_the_date_header_says_of_its_making(
    connection: ProviderConnection, idp: ScriptedProvider, clock: FakeClock
) -> None:
    authorization = start(connection)
    answer = dated(idp, clock, timedelta(0))
    clock.advance(3600)
    idp.reply_once("/token", replace(answer, headers={"Date": format_datetime(clock.now(), usegmt=True)}))

    with pytest.raises(ProviderMisbehaved, match="expired") as caught:
        ask(connection, authorization)

    assert "agree" in caught.value.remedy
