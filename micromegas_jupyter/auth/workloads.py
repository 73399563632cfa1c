"""Workload identity: each source gets the token that the platform issues for this program.

Sources: GitHub Docs, "OpenID Connect reference", and the variables that `@actions/core` reads; Google Cloud, "Verify
VM identity", and `GCE_METADATA_HOST` as its client libraries read it; Kubernetes, "Configure Service Accounts for
Pods"; Microsoft Learn, "How to use managed identities for Azure resources on an Azure VM to acquire an access token"
and "How to use managed identities for App Service and Azure Functions". Azure Arc and Service Fabric, which
authenticate differently, are not covered.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol, TypeAlias
from urllib.parse import quote, urlencode, urlsplit

from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.auth.tokens.source import (
    CachedTokenSource,
    ServiceToken,
    checked_token,
    clock_offset,
    jwt_service_token,
    opaque_service_token,
)
from micromegas_jupyter.core.files import FileProblem, read_shared_file
from micromegas_jupyter.core.http import Callee, HttpAnswer, PlatformHttp, ProviderCalls, RawAnswer
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock, Secret, secret_object
from micromegas_jupyter.core.text import JsonError, as_fetch_url, decode_strict_json
from micromegas_jupyter.errors import ConfigurationError, LoginFailed, ProviderMisbehaved, ProviderUnavailable
from micromegas_jupyter.oidc.authorization import (
    build_assertion,
    build_client_assertion_request,
    build_jwt_bearer_request,
    build_token_error,
    build_token_exchange_request,
    describe_provider_error,
    parse_token_answer,
    parse_token_exchange_answer,
)
from micromegas_jupyter.oidc.private_key import PrivateKey, parse_private_key

GITHUB_URL_VARIABLE = "ACTIONS_ID_TOKEN_REQUEST_URL"
GITHUB_TOKEN_VARIABLE = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"  # noqa: S105 - a variable's name, not a token
_GITHUB_REMEDY = "This works only in GitHub Actions, in a job with `permissions: id-token: write`."
_GITHUB = Callee(name="GitHub Actions", setting=GITHUB_URL_VARIABLE, remedy=_GITHUB_REMEDY)

GOOGLE_HOST_VARIABLE = "GCE_METADATA_HOST"
_GOOGLE_HOST = "metadata.google.internal"
_GOOGLE_PATH = "/computeMetadata/v1/instance/service-accounts/default/identity"
# The header that distinguishes the metadata server from other services at its address.
_GOOGLE_HEADER, _GOOGLE_HEADER_VALUE = "Metadata-Flavor", "Google"
_GOOGLE_REMEDY = (
    "This works only on Google Cloud with an attached service account; elsewhere, set "
    "MICROMEGAS_OIDC_SERVICE_ACCOUNT_FILE."
)
_GOOGLE = Callee(name="Google's metadata server", setting=GOOGLE_HOST_VARIABLE, remedy=_GOOGLE_REMEDY)

# App Service, Functions, and Container Apps set both; elsewhere the metadata service responds.
AZURE_APP_ENDPOINT_VARIABLE = "IDENTITY_ENDPOINT"
AZURE_APP_HEADER_VARIABLE = "IDENTITY_HEADER"
AZURE_MACHINE_HOST_VARIABLE = "AZURE_POD_IDENTITY_AUTHORITY_HOST"
_AZURE_MACHINE_HOST = "http://169.254.169.254"
_AZURE_MACHINE_PATH = "/metadata/identity/oauth2/token"
_AZURE_MACHINE_VERSION, _AZURE_APP_VERSION = "2018-02-01", "2019-08-01"
# The metadata service is being updated and will be available again; see "Error handling" in Microsoft's documentation.
_AZURE_TEMPORARY = frozenset({404, 410})
_AZURE_MAX_LIFETIME_SECONDS = 7 * 24 * 3600
_AZURE_REMEDY = (
    "This works only on Azure with a managed identity; if there are several, set MICROMEGAS_OIDC_WORKLOAD_CLIENT_ID."
)
_DIGITS = re.compile(r"[0-9]{1,10}")

MAX_TOKEN_FILE_BYTES = 64 * 1024
_FILE_REMEDY = (
    "This works only if the platform provides a token in a file, such as with a projected volume "
    "(serviceAccountToken); set MICROMEGAS_OIDC_WORKLOAD_TOKEN_FILE to that file."
)


class WorkloadSource(Protocol):
    """Gets the platform's token for this program; a token that the platform keeps fresh is read each time."""

    name: str
    is_read_each_time: bool

    def fetch(self) -> ServiceToken:
        """Return the platform's token."""


@dataclass(repr=False)
class GithubActionsSource:
    """Gets an OpenID Connect token for the job and `audience` from GitHub's runner; `environ` has its variables."""

    environ: Mapping[str, str]
    _: KW_ONLY
    audience: str
    http: PlatformHttp
    clock: Clock
    name: str = "github-actions"
    is_read_each_time: bool = False

    def __post_init__(self) -> None:
        for variable in (GITHUB_URL_VARIABLE, GITHUB_TOKEN_VARIABLE):
            if not self.environ.get(variable):
                raise ConfigurationError(f"{variable} is not set.", key=variable, remedy=_GITHUB_REMEDY)

    def fetch(self) -> ServiceToken:
        """See `WorkloadSource.fetch`."""
        url = self.environ[GITHUB_URL_VARIABLE]
        joint = "&" if "?" in url else "?"
        bearer = Secret(f"Bearer {self.environ[GITHUB_TOKEN_VARIABLE]}")
        answer = self.http.get(
            f"{url}{joint}audience={quote(self.audience, safe='')}",
            headers={"Authorization": bearer, "Accept": "application/json"},
            platform=_GITHUB,
        )
        if not answer.is_success:
            raise LoginFailed(f"GitHub Actions didn't return a token (status {answer.status}).", remedy=_GITHUB_REMEDY)
        token = checked_token(answer.json_object().get("value"), source=_GITHUB.name)
        return jwt_service_token(
            token, audience=self.audience, now=self.clock.now(), source=_GITHUB.name, date=answer.date
        )


@dataclass(repr=False)
class GoogleMetadataSource:
    """Gets an ID token of the attached service account for `audience` from Google's metadata server."""

    environ: Mapping[str, str]
    _: KW_ONLY
    audience: str
    http: PlatformHttp
    clock: Clock
    name: str = "google"
    is_read_each_time: bool = False

    def fetch(self) -> ServiceToken:
        """See `WorkloadSource.fetch`."""
        host = self.environ.get(GOOGLE_HOST_VARIABLE) or _GOOGLE_HOST
        url = f"http://{host}{_GOOGLE_PATH}?{urlencode({'audience': self.audience, 'format': 'full'})}"
        answer = self.http.get(url, headers={_GOOGLE_HEADER: _GOOGLE_HEADER_VALUE}, platform=_GOOGLE)
        if answer.headers.get(_GOOGLE_HEADER.lower()) != _GOOGLE_HEADER_VALUE:
            raise ProviderMisbehaved("The response is not from Google's metadata server.", remedy=_GOOGLE_REMEDY)
        if not answer.is_success:
            raise LoginFailed(
                f"Google's metadata server didn't return a token (status {answer.status}).", remedy=_GOOGLE_REMEDY
            )
        token = checked_token(answer.text().strip(), source=_GOOGLE.name)
        return jwt_service_token(
            token, audience=self.audience, now=self.clock.now(), source=_GOOGLE.name, date=answer.date
        )


@dataclass(repr=False)
class TokenFileSource:
    """Reads the token that Kubernetes, including Azure Kubernetes Service, keeps fresh in a file.

    The file is read each time, because the kubelet replaces it well before the token expires. Kubernetes uses a
    symbolic link, so links are followed. The platform controls who else may read the file. `setting` is the name of
    the file's setting, for errors.
    """

    path: Path
    _: KW_ONLY
    audience: str | None
    setting: str
    name: str
    clock: Clock
    is_read_each_time: bool = True

    def fetch(self) -> ServiceToken:
        """See `WorkloadSource.fetch`."""
        now = self.clock.now()
        source = f"The file that {self.setting} names"
        try:
            token = jwt_service_token(self._read(), audience=self.audience, now=now, source=source)
        except ProviderMisbehaved as problem:
            raise LoginFailed(problem.what, remedy=_FILE_REMEDY) from None
        if token.expires_at is not None and token.expires_at <= now:
            raise LoginFailed(
                f"{source} contains an expired token.",
                remedy="Check that the platform renews the file, and check this machine's clock.",
            )
        return token

    def _read(self) -> Secret:
        try:
            content, _ = read_shared_file(self.path, max_bytes=MAX_TOKEN_FILE_BYTES)
        except FileProblem as problem:
            raise ConfigurationError(
                f"The file that {self.setting} points to {problem.args[0]}.", key=self.setting, remedy=_FILE_REMEDY
            ) from None
        return Secret(content.decode("utf-8", "replace").strip())


class AzureManagedIdentitySource:
    """Gets an access token for the managed identity of a virtual machine, a container, or an app.

    `resource` is the application ID (URI) of the API, and `client_id` selects one of several identities.
    """

    name = "azure"
    is_read_each_time = False

    def __init__(
        self, environ: Mapping[str, str], *, resource: str, client_id: str | None, http: PlatformHttp, clock: Clock
    ) -> None:
        endpoint, secret = environ.get(AZURE_APP_ENDPOINT_VARIABLE), environ.get(AZURE_APP_HEADER_VARIABLE)
        self._is_app = bool(endpoint and secret)
        query = {"api-version": _AZURE_APP_VERSION if self._is_app else _AZURE_MACHINE_VERSION, "resource": resource}
        if client_id:
            query["client_id"] = client_id
        machine = (environ.get(AZURE_MACHINE_HOST_VARIABLE) or _AZURE_MACHINE_HOST).rstrip("/") + _AZURE_MACHINE_PATH
        self._url = f"{endpoint if self._is_app else machine}?{urlencode(query)}"
        self._secrets = (Secret(secret),) if self._is_app and secret else ()
        self._headers: dict[str, str | Secret] = (
            {"X-IDENTITY-HEADER": self._secrets[0]} if self._secrets else {"Metadata": "true"}
        )
        self._platform = Callee(
            name="Azure's managed identity endpoint",
            setting=AZURE_APP_ENDPOINT_VARIABLE if self._is_app else AZURE_MACHINE_HOST_VARIABLE,
            remedy=_AZURE_REMEDY,
        )
        self._http = http
        self._clock = clock

    def fetch(self) -> ServiceToken:
        """See `WorkloadSource.fetch`; an endpoint that is being updated counts as not responding."""
        if self._is_app and not _is_local(self._url):
            raise ConfigurationError(
                "The address of Azure's managed identity endpoint is not local, so the app's secret is not sent there.",
                key=AZURE_APP_ENDPOINT_VARIABLE,
                remedy=_AZURE_REMEDY,
            )
        answer = self._http.get(self._url, headers=self._headers, platform=self._platform)
        body = answer.json_object()
        if answer.status in _AZURE_TEMPORARY and not self._is_app:
            raise ProviderUnavailable(
                f"Azure's managed identity endpoint returned status {answer.status}.", remedy=_AZURE_REMEDY
            )
        if not answer.is_success:
            code, description = body.get("error"), body.get("error_description")
            why = describe_provider_error(code, description, secrets=self._secrets) if body else "no reason"
            raise LoginFailed(f"Azure didn't return a token (status {answer.status}, {why}).", remedy=_AZURE_REMEDY)
        token = checked_token(body.get("access_token"), source=self._platform.name)
        now = self._clock.now()
        return opaque_service_token(token, now=now, expires_at=_azure_expiry(body, answer, now))


def _is_local(url: str) -> bool:
    """Whether an app's endpoint is a local address, as on Azure. The owner of a DNS name could redirect the request."""
    try:
        host = urlsplit(url).hostname or ""
        if host == "localhost":
            return True
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_link_local or address.is_private


def _azure_expiry(body: Mapping[str, object], answer: RawAnswer, now: datetime) -> datetime | None:
    """Return when the token expires: a VM's response contains the lifetime, an app's only the expiry time."""
    lifetime = _whole_number(body.get("expires_in"))
    if lifetime is not None:
        return now + timedelta(seconds=min(lifetime, _AZURE_MAX_LIFETIME_SECONDS))
    expires_on = _whole_number(body.get("expires_on"))
    return None if expires_on is None else datetime.fromtimestamp(expires_on, UTC) - clock_offset(answer.date, now)


def _whole_number(value: object) -> int | None:
    # Microsoft encodes numbers as strings.
    text = str(value) if type(value) is int else value
    return int(text) if isinstance(text, str) and _DIGITS.fullmatch(text) else None


# Exchanges the platform's token for the bearer token.
TokenExchange: TypeAlias = Callable[[Secret], ServiceToken]


def token_exchange(  # noqa: PLR0913 - what the provider is asked
    connection: ProviderConnection,
    *,
    is_assertion: bool = False,
    scope: str | None = None,
    audience: str | None = None,
    resource: str | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> TokenExchange:
    """Return a function that exchanges the platform's token (RFC 8693) or uses it as a client assertion (RFC 7523)."""
    build = build_client_assertion_request if is_assertion else build_token_exchange_request
    parse = parse_token_answer if is_assertion else parse_token_exchange_answer

    def exchange(platform_token: Secret) -> ServiceToken:
        fields = build(platform_token, scope=scope, audience=audience, resource=resource)
        answer = connection.request_token_answer(fields, requested_scope=scope)
        now = clock.now()
        tokens = parse(answer, now=now, requested_scope=scope)
        return opaque_service_token(tokens.access_token, now=now, expires_at=tokens.expires_at)

    return exchange


class WorkloadProvider(CachedTokenSource):
    """Returns tokens for a program that its platform identifies; without `exchange`, the platform's own token."""

    def __init__(
        self, source: WorkloadSource, *, exchange: TokenExchange | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        super().__init__(clock)
        self._source = source
        self._exchange = exchange

    def get_token(self) -> str:
        """Return a currently valid token; a token that is read each time is not cached."""
        if self._exchange is None and self._source.is_read_each_time:
            return self._source.fetch().text.reveal()
        return super().get_token()

    def _fetch(self) -> ServiceToken:
        platform_token = self._source.fetch()
        return platform_token if self._exchange is None else self._exchange(platform_token.text)

    def __repr__(self) -> str:
        return f"WorkloadProvider(platform={self._source.name!r})"


# Google accepts at most an hour, and the exchange takes seconds.
ASSERTION_LIFETIME_SECONDS = 600
# A rejected assertion is signed again if its times were off by more than this.
_MAX_TOLERATED_OFFSET = timedelta(seconds=10)
_SOURCE = "Google"
_MISSING_REMEDY = "Set MICROMEGAS_OIDC_AUDIENCE, or both MICROMEGAS_OIDC_BEARER=access_token and MICROMEGAS_OIDC_SCOPE."
_REFUSED_REMEDY = (
    "Check that the service account and this key still exist (IAM & Admin, Service Accounts, Keys), and check this "
    "machine's clock."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccountKey:
    """The contents of a service account's key file: signer, key, and token endpoint."""

    email: str
    private_key: PrivateKey = field(repr=False)
    token_uri: str

    def __reduce__(self) -> str:
        raise TypeError("a private key cannot be pickled")


def parse_service_account_key(text: Secret, *, source_name: str) -> ServiceAccountKey:
    """Parse a key file as created by Google's console; `source_name` is the name of its setting, for errors."""
    members = None
    with suppress(JsonError):
        members = secret_object(decode_strict_json(text.reveal()))
    if not members:
        raise _unusable(source_name, "is not a JSON object")
    if members.get("type") != "service_account":
        raise _unusable(source_name, 'is not a service account key ("type": "service_account")')
    for name in ("client_email", "token_uri", "private_key_id", "private_key"):
        if not isinstance(members.get(name), str) or not members[name]:
            raise _unusable(source_name, f"does not contain {name}")
    token_uri = str(members["token_uri"])
    as_fetch_url(token_uri, source_name)
    private_key = parse_private_key(
        Secret(str(members["private_key"])),
        key_id=str(members["private_key_id"]),
        algorithm="RS256",
        source_name=source_name,
    )
    return ServiceAccountKey(email=str(members["client_email"]), private_key=private_key, token_uri=token_uri)


class GoogleServiceAccountProvider(CachedTokenSource):
    """Returns a service account's ID tokens for `audience`, or access tokens with `scope`."""

    def __init__(
        self,
        key: ServiceAccountKey,
        *,
        audience: str | None = None,
        scope: str | None = None,
        http: ProviderCalls,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(clock)
        if bool(audience) == bool(scope):
            raise ConfigurationError(
                "A Google service account needs an audience for ID tokens or a scope for access tokens.",
                key="MICROMEGAS_OIDC_AUDIENCE",
                remedy=_MISSING_REMEDY,
            )
        self.audience = audience or None
        self.scope = scope or None
        self._key = key
        self._http = http
        self._offset = timedelta()

    def _fetch(self) -> ServiceToken:
        used_offset = self._offset
        answer = self._request()
        if not answer.is_success and abs(self._offset - used_offset) > _MAX_TOLERATED_OFFSET:
            answer = self._request()  # the local clock is wrong, and the offset is now known
        if not answer.is_success:
            error = build_token_error(answer.body, is_refresh=False)
            raise LoginFailed(error.what, remedy=_REFUSED_REMEDY) if type(error) is LoginFailed else error
        now = self._clock.now()
        if self.audience is None:
            tokens = parse_token_answer(answer.body, now=now, requested_scope=self.scope)
            return opaque_service_token(tokens.access_token, now=now, expires_at=tokens.expires_at)
        id_token = checked_token(answer.body.get("id_token") if isinstance(answer.body, dict) else None, source=_SOURCE)
        return jwt_service_token(id_token, audience=self.audience, now=now, source=_SOURCE, date=answer.date)

    def _request(self) -> HttpAnswer:
        # No `sub`: Google treats it as the user to impersonate. Source: Google, "Using OAuth 2.0 for Server to Server
        # Applications", and its client libraries for `target_audience`.
        claims = {"iss": self._key.email, "aud": self._key.token_uri}
        if self.audience is not None:
            claims["target_audience"] = self.audience
        if self.scope is not None:
            claims["scope"] = self.scope
        assertion = build_assertion(
            self._key.private_key,
            claims,
            now=self._clock.now() + self._offset,
            lifetime_seconds=ASSERTION_LIFETIME_SECONDS,
        )
        answer = self._http.post_form(self._key.token_uri, build_jwt_bearer_request(assertion))
        self._offset = clock_offset(answer.date, self._clock.now())
        return answer

    def __repr__(self) -> str:
        return f"GoogleServiceAccountProvider(email={self._key.email!r}, private_key=***)"


def _unusable(source_name: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"The file that {source_name} points to {what}.",
        key=source_name,
        remedy="Specify the JSON key file of a Google service account; key files of other account types do not work.",
    )
