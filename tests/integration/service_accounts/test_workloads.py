"""Workload identities from settings to bearer token, against stand-ins of the platforms over real HTTP."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from micromegas_jupyter.config.client import ClientSettings, WorkloadExchange, WorkloadPlatform, WorkloadSetting
from micromegas_jupyter.errors import (
    ConfigurationError,
    LoginFailed,
    MicromegasError,
    ProviderMisbehaved,
    ProviderUnavailable,
)
from micromegas_jupyter.wiring.service_accounts import service_provider
from tests.fakes.loopback_http import Reply
from tests.fakes.platform_stand_ins import (
    IDENTITY_CLIENT_ID,
    PLATFORM_KEY,
    AzureApp,
    AzureMachine,
    ExchangingProvider,
    GithubRunner,
    GoogleMetadataServer,
    verified_claims,
)
from tests.fakes.raw_server import SilentServer
from tests.fakes.tracebacks import traceback_with_variables

pytestmark = pytest.mark.integration

PLATFORMS = {
    GithubRunner: WorkloadPlatform.GITHUB_ACTIONS,
    GoogleMetadataServer: WorkloadPlatform.GOOGLE,
    AzureMachine: WorkloadPlatform.AZURE,
    AzureApp: WorkloadPlatform.AZURE,
}

EVERY_PLATFORM = pytest.mark.parametrize("kind", list(PLATFORMS))


def settings_for(kind, **changes):
    members = {"platform": PLATFORMS[kind], "audience": "lake", **changes}
    return ClientSettings(workload=WorkloadSetting(**members))


def settings_at(idp, platform, exchange, *, workload_audience=None, token_file=None, **options):
    """Return settings by which a provider is given the platform's token."""
    workload = WorkloadSetting(platform=platform, exchange=exchange, audience=workload_audience, token_file=token_file)
    own = {"issuer": idp.issuer, "client_id": idp.client_id, "audience": "lake", **options}
    return ClientSettings(**own, workload=workload)


def provider_of(settings, platform):
    return service_provider(settings, platform.environ())


def claims_of(token):
    return verified_claims(token, PLATFORM_KEY, key_id=PLATFORM_KEY.kid)


@EVERY_PLATFORM
def test_the_token_of_the_platform_is_the_bearer_and_is_kept(kind):
    with kind() as platform:
        provider = provider_of(settings_for(kind), platform)

        token = provider.get_token()
        again = provider.get_token()

        assert claims_of(token)["aud"] == "lake"
        assert again == token
        assert len(platform.calls) == 1


@EVERY_PLATFORM
def test_a_token_that_a_server_refused_is_fetched_anew(kind):
    with kind() as platform:
        provider = provider_of(settings_for(kind), platform)
        first = provider.get_token()

        provider.invalidate(first)

        assert provider.get_token() != first


@EVERY_PLATFORM
def test_the_token_of_the_platform_is_exchanged_at_the_provider(kind):
    with kind() as platform, ExchangingProvider() as idp:
        settings = settings_at(idp, PLATFORMS[kind], WorkloadExchange.TOKEN_EXCHANGE)
        provider = provider_of(settings, platform)

        claims = claims_of(provider.get_token())
        provider.get_token()

        assert (claims["iss"], claims["aud"]) == (idp.issuer, "lake")
        assert len(idp.token_calls()) == 1


@EVERY_PLATFORM
def test_the_token_of_the_platform_proves_the_application(kind):
    with kind() as platform, ExchangingProvider(trusted_audience="api://AzureADTokenExchange") as idp:
        scope = {"scope": "api://lake/.default", "preset": "entra", "audience": None}
        settings = settings_at(idp, PLATFORMS[kind], WorkloadExchange.CLIENT_ASSERTION, **scope)

        claims = claims_of(provider_of(settings, platform).get_token())

        assert (claims["iss"], claims["sub"]) == (idp.issuer, idp.client_id)


def test_a_provider_that_does_not_trust_the_platform_is_a_failed_login():
    with GithubRunner() as platform, ExchangingProvider() as idp:
        exchange = WorkloadExchange.TOKEN_EXCHANGE
        settings = settings_at(idp, PLATFORMS[GithubRunner], exchange, workload_audience="elsewhere")

        with pytest.raises(LoginFailed, match="not acceptable"):
            provider_of(settings, platform).get_token()


def test_one_of_several_managed_identities_is_asked_for():
    with AzureMachine() as platform:
        settings = settings_for(AzureMachine, managed_identity_client_id=IDENTITY_CLIENT_ID)

        provider_of(settings, platform).get_token()

        assert platform.calls[0].query["client_id"] == IDENTITY_CLIENT_ID


@EVERY_PLATFORM
@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        *((Reply(status=status, text=""), ProviderUnavailable) for status in (503, 429)),
        (Reply(status=302, text="", headers={"Location": "http://127.0.0.1:1/"}), ProviderMisbehaved),
        (Reply(status=403, text=""), LoginFailed),
        *((Reply(text=text), ProviderMisbehaved) for text in ("", "{", "x" * 200_000)),
        (Reply(text="", headers={"Content-Encoding": "gzip"}), ProviderMisbehaved),
    ],
)
def test_each_fault_ends_in_its_own_class_with_a_remedy(kind, reply, expected):
    with kind() as platform:
        platform.reply_once(replace(reply, headers={"Metadata-Flavor": "Google", **reply.headers}))

        with pytest.raises(expected) as caught:
            provider_of(settings_for(kind), platform).get_token()

        assert type(caught.value) is expected
        assert caught.value.remedy


@pytest.mark.slow
def test_a_platform_that_says_nothing_is_given_up_after_five_seconds():
    def ask(kind, variable, address):
        with SilentServer() as server:
            provider = service_provider(settings_for(kind), {variable: address.format(port=server.port)})
            started = time.monotonic()

            with pytest.raises(ProviderUnavailable, match="within 5 seconds") as caught:
                provider.get_token()

            assert time.monotonic() - started < 40
            assert "This works on" in caught.value.remedy

    # They wait at the same time.
    with ThreadPoolExecutor() as threads:
        google = threads.submit(ask, GoogleMetadataServer, "GCE_METADATA_HOST", "127.0.0.1:{port}")
        azure = threads.submit(ask, AzureMachine, "AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:{port}")
    google.result()
    azure.result()


@pytest.mark.parametrize(
    ("kind", "variable", "address"),
    [
        (GoogleMetadataServer, "GCE_METADATA_HOST", "metadata.example.com"),
        (GoogleMetadataServer, "GCE_METADATA_HOST", "10.0.0.1"),
        (AzureMachine, "AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://192.168.0.1"),
    ],
)
def test_plain_http_never_leaves_the_machine(kind, variable, address):
    provider = service_provider(settings_for(kind), {variable: address})

    with pytest.raises(ConfigurationError, match="neither https nor inside this machine"):
        provider.get_token()


def test_a_pod_exchanges_its_token_anew_after_the_kubelet_replaced_it(tmp_path):
    with ExchangingProvider() as idp:
        token_file = tmp_path / "token"
        token_file.write_text(idp.mint(issuer="https://kubernetes", subject="pod-1", audience=idp.issuer))
        exchange = WorkloadExchange.TOKEN_EXCHANGE
        settings = settings_at(idp, WorkloadPlatform.KUBERNETES, exchange, token_file=token_file)
        provider = service_provider(settings, {})
        first = provider.get_token()
        token_file.write_text(idp.mint(issuer="https://kubernetes", subject="pod-2", audience=idp.issuer))

        provider.invalidate(first)
        second = provider.get_token()

        assert [claims_of(token)["sub"] for token in (first, second)] == ["pod-1", "pod-2"]


def test_a_pod_of_azure_proves_the_application_with_its_federated_token(tmp_path):
    audience = "api://AzureADTokenExchange"
    with ExchangingProvider(trusted_audience=audience) as idp:
        token_file = tmp_path / "azure-identity-token"
        token_file.write_text(idp.mint(issuer="https://kubernetes", subject="pod", audience=audience))
        options = {"scope": "api://lake/.default", "client_id": None, "audience": None}
        settings = settings_at(idp, WorkloadPlatform.AZURE, WorkloadExchange.CLIENT_ASSERTION, **options)
        environ = {"AZURE_FEDERATED_TOKEN_FILE": str(token_file), "AZURE_CLIENT_ID": idp.client_id}

        provider = service_provider(settings, environ)

        assert claims_of(provider.get_token())["sub"] == idp.client_id


@EVERY_PLATFORM
@pytest.mark.parametrize("status", [200, 403, 503])
def test_neither_a_secret_nor_a_token_is_shown(kind, status):
    with kind() as platform:
        provider = provider_of(settings_for(kind), platform)
        token, foreign = provider.get_token(), platform.mint(issuer="x", subject="y", audience="another")
        body = json.dumps({"error": "denied", "error_description": token, "value": foreign})
        text = foreign if kind is GoogleMetadataServer else body
        platform.reply_once(Reply(status=status, text=text, headers={"Metadata-Flavor": "Google"}))
        provider.invalidate(token)

        with pytest.raises(MicromegasError) as caught:
            provider.get_token()

        assert token not in f"{provider!r} {provider} {caught.value} {caught.value!r}"
        shown = traceback_with_variables(caught.value)
        hidden = [foreign, *(v for name, v in platform.environ().items() if name.endswith(("TOKEN", "HEADER")))]
        assert not [secret for secret in hidden if secret in shown]
