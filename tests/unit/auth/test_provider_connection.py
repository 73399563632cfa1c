"""One application's calls to one provider: documents, grants, client authentication, and what errors may show."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from urllib.parse import quote_plus

import pytest
from joserfc.jwk import ECKey

from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.core.http import HttpAnswer
from micromegas_jupyter.core.system import SYSTEM_RANDOMNESS, Secret
from micromegas_jupyter.errors import MicromegasError, ProviderMisbehaved, ProviderUnavailable
from micromegas_jupyter.oidc.authorization import TokenSet, build_authorization_request
from micromegas_jupyter.oidc.device import DeviceAuthorization
from micromegas_jupyter.oidc.jwt import parse_token
from micromegas_jupyter.oidc.private_key import PrivateKey
from tests.fakes.mint import ec_key, rsa_key
from tests.fakes.scripted_provider import Reply


@pytest.fixture
def connect(idp, calls, clock):
    return partial(ProviderConnection, idp.issuer, "notebook", http=calls, clock=clock)


@pytest.fixture
def connection(connect):
    return connect(None)


def tokens_of(idp):
    return TokenSet(access_token=Secret("acc"), id_token=Secret(idp.mint_id_token(access_token="acc")))


def test_a_rotated_key_is_fetched_once_and_unknown_ones_do_not_make_the_client_fetch_again_and_again(
    connection, idp, clock
):
    connection.keys()
    idp.signing_key = rsa_key("new")
    idp.published_keys = (ec_key(), rsa_key("new"))
    assert connection.verify(tokens_of(idp), nonce=None).subject == "alice-1"
    assert len(idp.seen("/keys")) == 2
    clock.advance(3600)
    connection.keys()
    idp.signing_key = rsa_key("unpublished")

    for _ in range(20):
        with pytest.raises(ProviderMisbehaved):
            connection.verify(tokens_of(idp), nonce=None)
    clock.advance(10)
    with pytest.raises(ProviderMisbehaved):
        connection.verify(tokens_of(idp), nonce=None)

    assert len(idp.seen("/keys")) == 5


def code_request(connection):
    options = {"client_id": "notebook", "redirect_uri": "http://127.0.0.1:1/callback", "scope": "openid"}
    return build_authorization_request(connection.metadata(), randomness=SYSTEM_RANDOMNESS, **options)


# The device grant


def test_a_caller_that_wants_the_access_token_can_do_without_an_id_token_but_one_is_checked(connection, idp):
    authorization = connection.start_device(scope="openid", audience=None, resource=None)
    for body in ({"access_token": "acc", "token_type": "Bearer"},) * 2 + (idp.issue(nonce="another"),):
        idp.reply_once("/token", Reply(body=body))

    by_device = connection.poll_device(authorization, scope="openid", needs_id_token=False)
    by_code = connection.exchange_code(code_request(connection), Secret("c"), needs_id_token=False)

    assert by_device.id_token is by_code.id_token is None
    with pytest.raises(ProviderMisbehaved, match="nonce"):
        connection.exchange_code(code_request(connection), Secret("c"), needs_id_token=False)


def start_device(connection):
    return connection.start_device(scope="email", audience="lake", resource="https://lake.example.com")


def poll(connection, authorization):
    return connection.poll_device(authorization, scope="openid email")


def dated(idp, clock, ahead):
    """A token answer of a provider whose clock is `ahead` of this machine's."""
    seconds = int((clock.now() + ahead).timestamp())
    answer = idp.issue()
    answer["id_token"] = idp.mint_id_token(iat=seconds, exp=seconds + 300)
    return Reply(body=answer, headers={"Date": format_datetime(clock.now() + ahead, usegmt=True)})


@pytest.mark.parametrize("hours", [-23, 1])
def test_an_id_token_is_held_against_the_provider_s_time(hours, connection, idp, clock):
    authorization = start_device(connection)
    idp.reply_once("/token", dated(idp, clock, timedelta(hours=hours)))

    tokens = poll(connection, authorization)

    assert isinstance(tokens, TokenSet)
    assert tokens.obtained_at == connection.now()
    assert connection.clock_offset_seconds == pytest.approx(hours * 3600, abs=1)


@pytest.mark.parametrize("days", [3, -3])
def test_a_clock_that_is_days_off_is_not_believed_away(days, connection, idp, clock):
    authorization = start_device(connection)
    idp.reply_once("/token", dated(idp, clock, timedelta(days=days)))

    with pytest.raises(ProviderMisbehaved) as caught:
        poll(connection, authorization)

    assert "clock" in caught.value.remedy


def test_an_old_id_token_is_refused_whatever_the_date_header_says_of_its_making(connection, idp, clock):
    authorization = start_device(connection)
    answer = dated(idp, clock, timedelta(0))
    clock.advance(3600)
    idp.reply_once("/token", replace(answer, headers={"Date": format_datetime(clock.now(), usegmt=True)}))

    with pytest.raises(ProviderMisbehaved, match="expired"):
        poll(connection, authorization)


# Client authentication


CLIENT_SECRET = "p w+d/%:s3same"
# base64 of "notebook:p+w%2Bd%2F%25%3As3same"
BASIC_CREDENTIALS = "bm90ZWJvb2s6cCt3JTJCZCUyRiUyNSUzQXMzc2FtZQ=="


@pytest.fixture
def key():
    return PrivateKey(key=ECKey.generate_key("P-256"), algorithm="ES256", key_id="k1")


@pytest.mark.parametrize(
    ("path", "call"),
    [
        ("/token", lambda found: found.client_credentials(scope=None, audience=None)),
        ("/revoke", lambda found: found.revoke(Secret("t"), kind="refresh_token")),
        ("/device_authorization", lambda found: found.start_device(scope="openid", audience=None, resource=None)),
    ],
)
def test_a_private_key_signs_a_new_assertion_for_the_token_endpoint(  # noqa: PLR0917 - fixtures and one case
    path, call, key, idp, connect, clock
):
    connection = connect(key)
    address = {"verification_uri": "http://127.0.0.1:1/activate"}
    for _ in range(2):
        idp.reply_once(path, Reply(body={"device_code": "d", "user_code": "A", **address, **idp.issue()}))

    call(connection)
    call(connection)

    claims = [parse_token(request.form["client_assertion"]).claims for request in idp.seen(path)]
    assert [found["aud"] for found in claims] == [f"{idp.base}/token"] * 2
    assert claims[0]["jti"] != claims[1]["jti"]
    assert claims[0]["iat"] == int(clock.now().timestamp())
    assert "client_secret" not in idp.seen(path)[0].form


def test_an_assertion_that_another_host_is_sent_cannot_be_used_at_the_token_endpoint(key, idp, calls, connect):
    sent = []
    calls.post_form = lambda url, fields, **_options: sent.append(fields) or HttpAnswer(status=200, body={})
    idp.metadata_changes["revocation_endpoint"] = "https://other.example.com/revoke"

    connect(key).revoke(Secret("t"), kind="refresh_token")

    assert parse_token(sent[0]["client_assertion"].reveal()).claims["aud"] == "https://other.example.com/revoke"


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
@pytest.mark.parametrize("written", [CLIENT_SECRET, quote_plus(CLIENT_SECRET), BASIC_CREDENTIALS])
def test_a_provider_that_repeats_a_secret_does_not_get_it_into_an_error(written, method, idp, connect, clock):
    idp.metadata_changes["token_endpoint_auth_methods_supported"] = [method]
    connection = connect(Secret(CLIENT_SECRET))
    answer = Reply(status=400, body={"error": f"{written} r3fresh", "error_description": f"no {written} and r3fresh"})
    device = DeviceAuthorization(
        device_code=Secret("r3fresh"), user_code="A", verification_uri="https://id/d", expires_at=clock.now()
    )
    attempts = (
        lambda: connection.refresh(Secret("r3fresh"), granted_scope=None),
        lambda: connection.exchange_code(code_request(connection), Secret("r3fresh")),
        lambda: connection.request_token_answer({"assertion": Secret("r3fresh")}, requested_scope=None),
        lambda: connection.poll_device(device, scope="openid"),
    )

    for attempt in attempts:
        idp.reply_once("/token", answer)
        with pytest.raises(MicromegasError) as caught:
            attempt()
        shown = f"{caught.value} {caught.value!r} {caught.value.__cause__}"
        assert "s3same" not in shown
        assert "bm90ZW" not in shown
        assert "r3fresh" not in shown


# Documents


def test_documents_are_fetched_once_an_hour_and_kept_while_the_provider_is_down(connection, idp, clock):
    for _ in range(3):
        connection.keys()
    clock.advance(3600)
    keys = connection.keys()
    assert [len(idp.seen(path)) for path in ("/.well-known/openid-configuration", "/keys")] == [2, 2]
    clock.advance(7200)
    idp.is_down = True

    assert connection.keys() == keys
    assert connection.metadata().issuer == idp.issuer


def test_a_fetch_of_rotated_keys_that_failed_counts_too(connection, idp, clock):
    kept = connection.keys()
    idp.is_down = True

    with pytest.raises(ProviderUnavailable):
        connection.keys_after_rotation()
    clock.advance(9)

    assert connection.keys_after_rotation() == kept
    assert len(idp.seen("/keys")) == 2


class DatedCalls:
    """Implements `http.ProviderCalls`: every answer takes `trip_seconds` and is dated halfway, in whole seconds."""

    def __init__(self, clock):
        self._clock = clock
        self.ahead_seconds = self.trip_seconds = self.sleep_seconds = 0.0
        self.status, self.dates = 200, []

    def fetch_json(self, _url):
        self._clock.advance(self.trip_seconds / 2)
        date = (self._clock.now() + timedelta(seconds=self.ahead_seconds)).replace(microsecond=0)
        self._clock.advance(self.trip_seconds / 2)
        self._clock.sleep_through(self.sleep_seconds)
        names = ("jwks_uri", "token_endpoint", "revocation_endpoint")
        document = {"issuer": DATED, "keys": [rsa_key().jwk()], **{name: f"{DATED}/{name}" for name in names}}
        return HttpAnswer(status=self.status, body=document, date=self.dates.pop() if self.dates else date)

    def post_form(self, url, _fields, **_options):
        return self.fetch_json(url)


DATED = "https://id.example.com"


def dated_connection(clock):
    calls = DatedCalls(clock)
    connection = ProviderConnection(DATED, "notebook", None, http=calls, clock=clock)
    connection.metadata()
    return connection, calls


def measured(clock, *, by_post=True, **changes):
    connection, calls = dated_connection(clock)
    vars(calls).update(changes)
    connection.revoke(Secret("t0ken"), kind="access_token") if by_post else connection.keys()
    return connection


@pytest.mark.parametrize("ahead_seconds", [300, -300, 86_000, -86_000, 90_000, -90_000])
@pytest.mark.parametrize("by_post", [True, False])
def test_a_difference_is_measured_to_about_a_second_and_followed_up_to_a_day(by_post, ahead_seconds, clock):
    timed = measured(clock, by_post=by_post, ahead_seconds=ahead_seconds)

    assert timed.measured_clock_offset_seconds == pytest.approx(ahead_seconds, abs=1)
    assert timed.clock_offset_seconds == (timed.measured_clock_offset_seconds if abs(ahead_seconds) < 86_400 else 0)
    assert timed.now() == clock.now() + timedelta(seconds=timed.clock_offset_seconds)


@pytest.mark.parametrize("ahead_seconds", [0, 1.5, -1.5, 2, -2])
@pytest.mark.parametrize("into_the_second", [0, 0.5, 0.999])
def test_a_difference_of_two_seconds_is_none(ahead_seconds, into_the_second, clock):
    clock.advance(into_the_second)

    assert measured(clock, ahead_seconds=ahead_seconds).clock_offset_seconds == 0.0


def test_a_document_that_a_cache_may_have_kept_does_not_overrule_the_answer_to_a_post(clock):
    timed, calls = dated_connection(clock)
    calls.ahead_seconds = 3000
    timed.keys()
    assert timed.measured_clock_offset_seconds == pytest.approx(3000, abs=1)
    calls.ahead_seconds = 0
    timed.revoke(Secret("t0ken"), kind="access_token")
    calls.ahead_seconds = -3000
    timed.keys_after_rotation()

    assert timed.measured_clock_offset_seconds == 0.0


@pytest.mark.parametrize(
    "changes",
    [
        {"ahead_seconds": 300, "status": 400},
        {"ahead_seconds": 300, "dates": [None]},
        {"ahead_seconds": 5, "trip_seconds": 8},
        {"sleep_seconds": 7200},
        {"sleep_seconds": -7200},
        {"dates": [datetime(1, 1, 1, tzinfo=UTC)]},
        {"dates": [datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)]},
    ],
    ids=["a failure", "no date", "a slow answer", "slept", "set back", "the first year", "the last year"],
)
def test_what_says_nothing_about_the_clocks_is_not_followed(changes, clock):
    assert measured(clock, **changes).clock_offset_seconds == 0.0
