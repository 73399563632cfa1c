"""A Google service account's key file, and the secrets of all platforms when something goes wrong, over real HTTP."""

import pytest

from micromegas_jupyter.auth.workloads import GoogleServiceAccountProvider, parse_service_account_key
from micromegas_jupyter.config.client import ClientSettings, WorkloadPlatform, WorkloadSetting
from micromegas_jupyter.core.http import ProviderHttp
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import LoginFailed, ProviderMisbehaved, ProviderUnavailable
from micromegas_jupyter.wiring.service_accounts import service_provider
from tests.fakes.clock import FakeClock
from tests.fakes.loopback_http import Reply
from tests.fakes.mint import mint
from tests.fakes.platform_stand_ins import KEY_ID, PLATFORM_KEY, GoogleTokenEndpoint, verified_claims
from tests.fakes.tracebacks import verbose_traceback

pytestmark = pytest.mark.integration


@pytest.fixture
def google(clock):
    with GoogleTokenEndpoint(clock=clock) as running:
        yield running


def provider(google, clock, *, audience="lake", scope=None, key_id=KEY_ID):
    text = Secret(google.key_file(private_key_id=key_id))
    key = parse_service_account_key(text, source_name="service_account_file")
    return GoogleServiceAccountProvider(key, audience=audience, scope=scope, http=ProviderHttp(), clock=clock)


def test_an_id_token_for_the_audience_is_the_bearer_and_is_kept(google, clock):
    account = provider(google, clock)

    token = account.get_token()
    again = account.get_token()

    claims = verified_claims(token, PLATFORM_KEY, key_id=PLATFORM_KEY.kid)
    assert claims["aud"] == "lake"
    assert again == token
    assert len(google.calls) == 1


def test_a_scope_gets_an_access_token(google, clock):
    account = provider(google, clock, audience=None, scope="https://www.googleapis.com/auth/cloud-platform")

    assert account.get_token().startswith("ya29.")


def test_a_wrong_clock_is_allowed_for(google):
    slow = FakeClock(google.clock.now())
    slow.advance(-1800)
    account = provider(google, slow)

    first = account.get_token()
    slow.advance(3310)
    google.clock.advance(3310)
    second = account.get_token()

    assert first != second
    assert len(google.calls) == 3, "one refusal to learn the difference, then one call for each token"


def test_a_key_that_is_gone_is_a_failed_login_with_its_remedy(google, clock):
    with pytest.raises(LoginFailed) as caught:
        provider(google, clock, key_id="removed").get_token()

    assert type(caught.value) is LoginFailed
    assert "Invalid JWT Signature" in caught.value.what
    assert "Keys" in caught.value.remedy


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(status=503, body={}), ProviderUnavailable),
        *((Reply(body=body), ProviderMisbehaved) for body in ({"id_token": "a.b.c"}, {"id_token": 7}, {}, [])),
        (Reply(status=400, body={}), ProviderMisbehaved),
    ],
)
def test_each_fault_ends_in_its_own_class_with_a_remedy(google, clock, reply, expected):
    google.reply_once(reply)

    with pytest.raises(expected) as caught:
        provider(google, clock).get_token()

    assert type(caught.value) is expected
    assert caught.value.remedy


@pytest.mark.parametrize("key_id", [KEY_ID, "gone"])
def test_neither_a_google_token_for_somebody_else_nor_a_refused_assertion_is_shown(key_id, google, clock):
    token = google.mint(issuer="x", subject="y", audience="another")
    if key_id == KEY_ID:
        google.reply_once(Reply(body={"id_token": token}))
    account = provider(google, clock, key_id=key_id)

    shown = verbose_traceback(account.get_token)

    assert token.partition(".")[2] not in shown
    assert google.calls[0].form["assertion"] not in shown


def test_a_token_in_a_file_that_has_ended_is_not_shown(tmp_path):
    file, token = tmp_path / "token", mint(expires_in=-1_000_000_000)
    file.write_text(token)
    workload = WorkloadSetting(platform=WorkloadPlatform.KUBERNETES, token_file=file)
    provider = service_provider(ClientSettings(audience="lake", workload=workload), {})

    assert token not in verbose_traceback(provider.get_token)


@pytest.mark.parametrize(("content", "mode"), [(b"s3same", 0o644), (b"s3same\ntwo", 0o600), (b"s3same\xff", 0o600)])
def test_a_secret_that_cannot_be_used_is_not_shown(tmp_path, content, mode):
    file = tmp_path / "secret"
    file.write_bytes(content)
    file.chmod(mode)
    settings = ClientSettings(issuer="https://id.example.com", client_id="svc", client_secret_file=file)

    assert "s3same" not in verbose_traceback(lambda: service_provider(settings, {}))
