"""A Google service account's key file, and the secrets of all platforms when something goes wrong, over real HTTP."""

import traceback

import pytest

from micromegas_jupyter.auth.workloads import GoogleServiceAccountProvider, parse_service_account_key
from micromegas_jupyter.config.client import ClientSettings, WorkloadPlatform, WorkloadSetting
from micromegas_jupyter.core.http import ProviderHttp
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import LoginFailed, MicromegasError, ProviderMisbehaved, ProviderUnavailable
from micromegas_jupyter.wiring.credentials import service_provider
from tests.fakes.clock import FakeClock
from tests.fakes.loopback_http import Reply
from tests.fakes.platform_stand_ins import (
    APP_HEADER,
    PLATFORM_KEY,
    REQUEST_TOKEN,
    AzureApp,
    GithubRunner,
    GoogleMetadataServer,
    GoogleTokenEndpoint,
    verified_claims,
)

pytestmark = pytest.mark.integration


@pytest.fixture
def google(clock):
    with GoogleTokenEndpoint(clock=clock) as running:
        yield running


def provider(google, clock, *, audience="lake", scope=None):
    key = parse_service_account_key(Secret(google.key_file()), source_name="service_account_file")
    return GoogleServiceAccountProvider(key, audience=audience, scope=scope, http=ProviderHttp(), clock=clock)


def test_an_id_token_for_the_audience_is_the_bearer_and_is_kept(google, clock):
    account = provider(google, clock)

    token = account.get_token()
    again = account.get_token()

    claims = verified_claims(token, PLATFORM_KEY, key_id=PLATFORM_KEY.kid)
    assert claims is not None
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
    google.clock.advance(3310)  # type: ignore[attr-defined]
    second = account.get_token()

    assert first != second
    assert len(google.calls) == 3, "one refusal to learn the difference, then one call for each token"


def test_a_key_that_is_gone_is_a_failed_login_with_its_remedy(google, clock):
    key = parse_service_account_key(
        Secret(google.key_file(private_key_id="removed")), source_name="service_account_file"
    )
    account = GoogleServiceAccountProvider(key, audience="lake", http=ProviderHttp(), clock=clock)

    with pytest.raises(LoginFailed) as caught:
        account.get_token()

    assert type(caught.value) is LoginFailed
    assert "Invalid JWT Signature" in caught.value.what
    assert "Keys" in caught.value.remedy


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(status=503, body={}), ProviderUnavailable),
        (Reply(status=302, headers={"Location": "http://127.0.0.1:1/"}), ProviderMisbehaved),
        (Reply(text="<html>", headers={"Content-Type": "text/html"}), ProviderMisbehaved),
        (Reply(text="{"), ProviderMisbehaved),
        (Reply(text='{"id_token": "' + "x" * 1_100_000 + '"}'), ProviderMisbehaved),
        (Reply(body={"id_token": "a.b.c"}), ProviderMisbehaved),
        (Reply(body={"id_token": 7}), ProviderMisbehaved),
        (Reply(body={}), ProviderMisbehaved),
        (Reply(body=[]), ProviderMisbehaved),
        (Reply(status=400, body={}), ProviderMisbehaved),
    ],
)
def test_each_fault_ends_in_its_own_class_with_a_remedy(google, clock, reply, expected):
    google.reply_once(reply)

    with pytest.raises(expected) as caught:
        provider(google, clock).get_token()

    assert type(caught.value) is expected
    assert caught.value.remedy  # type: ignore[attr-defined]


def full_traceback(call):
    """Return everything that a verbose traceback shows of the package's own frames."""
    with pytest.raises(MicromegasError) as caught:
        call()
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    # The tests' own frames hold what they look for.
    own = [frame for frame in told.stack if "micromegas_jupyter" in frame.filename]
    assert own
    return "\n".join([repr(caught.value), str(caught.value), *(f"{frame.name} {frame.locals}" for frame in own)])


def workload(platform, **members):
    return ClientSettings(audience="lake", workload=WorkloadSetting(platform=platform, **members))  # type: ignore[arg-type]


@pytest.mark.parametrize("key_id", [None, "gone"])
def test_neither_a_google_token_for_somebody_else_nor_a_refused_assertion_is_shown(key_id, clock):
    with GoogleTokenEndpoint(clock=clock) as google:
        token = google.mint(issuer="x", subject="y", audience="another")
        text = google.key_file() if key_id is None else google.key_file(private_key_id=key_id)
        if key_id is None:
            google.reply_once(Reply(body={"id_token": token}))
        key = parse_service_account_key(Secret(text), source_name="service_account_file")
        account = GoogleServiceAccountProvider(key, audience="lake", http=ProviderHttp(), clock=clock)

        shown = full_traceback(account.get_token)

        assert token.partition(".")[2] not in shown
        assert google.calls[0].form["assertion"] not in shown


@pytest.mark.parametrize("status", [200, 403])
def test_neither_the_runners_secret_nor_a_token_is_shown(status):
    with GithubRunner() as runner:
        token = runner.mint(issuer="x", subject="y", audience="another")
        runner.reply_once(Reply(status=status, body={"value": token}))
        provider = service_provider(workload(WorkloadPlatform.GITHUB_ACTIONS), runner.environ())
        assert provider is not None

        shown = full_traceback(provider.get_token)

        assert token not in shown
        assert REQUEST_TOKEN not in shown


def test_a_token_of_the_metadata_server_for_somebody_else_is_not_shown():
    with GoogleMetadataServer() as server:
        token = server.mint(issuer="x", subject="y", audience="another")
        server.reply_once(Reply(text=token, headers={"Metadata-Flavor": "Google"}))
        provider = service_provider(workload(WorkloadPlatform.GOOGLE), server.environ())
        assert provider is not None

        assert token not in full_traceback(provider.get_token)


def test_the_header_of_an_app_is_not_shown():
    with AzureApp() as app:
        app.reply_once(Reply(status=503))
        provider = service_provider(workload(WorkloadPlatform.AZURE), app.environ())
        assert provider is not None

        assert APP_HEADER not in full_traceback(provider.get_token)


def test_a_token_in_a_file_that_has_ended_is_not_shown(tmp_path):
    with GoogleMetadataServer(clock=FakeClock()) as mint:
        mint.lifetime_seconds = -1_000_000_000
        token = mint.mint(issuer="x", subject="y", audience="lake")
    file = tmp_path / "token"
    file.write_text(token)
    provider = service_provider(workload(WorkloadPlatform.KUBERNETES, token_file=file), {})
    assert provider is not None

    assert token not in full_traceback(provider.get_token)


@pytest.mark.parametrize(
    ("changes", "mode"),
    [({}, 0o644), ({"token_uri": None}, 0o600), ({"type": "other"}, 0o600), ({"token_uri": "http://x.example"}, 0o600)],
)
def test_a_key_that_cannot_be_used_is_not_shown(tmp_path, changes, mode):
    with GoogleTokenEndpoint() as google:
        file = tmp_path / "google.json"
        file.write_text(google.key_file(**changes))
        file.chmod(mode)
        settings = ClientSettings(audience="lake", service_account_file=file)

        assert "PRIVATE KEY" not in full_traceback(lambda: service_provider(settings, {}))


@pytest.mark.parametrize(("content", "mode"), [(b"s3same", 0o644), (b"s3same\ntwo", 0o600), (b"s3same\xff", 0o600)])
def test_a_secret_that_cannot_be_used_is_not_shown(tmp_path, content, mode):
    file = tmp_path / "secret"
    file.write_bytes(content)
    file.chmod(mode)
    settings = ClientSettings(issuer="https://id.example.com", client_id="svc", client_secret_file=file)

    assert "s3same" not in full_traceback(lambda: service_provider(settings, {}))
