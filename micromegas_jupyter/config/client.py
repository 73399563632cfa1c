"""The client half's settings: where to connect, how to sign in, how many rows a notebook shows.

Each setting is declared once, with its variable, its member of `config.json` and the reader that checks its value.
"""

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePath
from typing import Annotated, Any, Final, Literal
from urllib.parse import SplitResult, urlsplit

from msgspec import Meta

from micromegas_jupyter.config.decoding import (
    SIGNATURE_ALGORITHMS,
    as_choice,
    as_issuer,
    as_named,
    as_text,
    as_type,
    is_text,
    parse_count,
)
from micromegas_jupyter.core.http import LOOPBACK_HOSTS
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.errors import ConfigurationError


class Flow(enum.StrEnum):
    """How a person signs in."""

    BROWSER = "browser"
    """Authorization code with PKCE; the browser comes back to a loopback address of this machine (RFC 8252)."""
    DEVICE = "device"
    """A short code that the person types on any device (RFC 8628)."""
    PASTE = "paste"
    """Authorization code with PKCE; the person pastes the address that the browser ends at."""
    REDIRECT = "redirect"
    """Authorization code with PKCE; the browser comes back to the Jupyter server."""
    HUB = "hub"
    """JupyterHub gives the token of the person who is signed in there."""


class Bearer(enum.StrEnum):
    """Which of the tokens is sent to the server."""

    ID_TOKEN = "id_token"  # noqa: S105 - a kind of token, not a token
    ACCESS_TOKEN = "access_token"  # noqa: S105 - a kind of token, not a token


class TokenStorage(enum.StrEnum):
    """Where a person's sign-in is kept."""

    FILE = "file"  # readable by its owner only; shared with upstream's programs
    KEYRING = "keyring"  # the operating system's keyring; an error where none can be used


class WorkloadPlatform(enum.StrEnum):
    """Platforms that vouch for the programs that run on them."""

    GITHUB_ACTIONS = "github-actions"
    KUBERNETES = "kubernetes"
    GOOGLE = "google"
    AZURE = "azure"


class WorkloadExchange(enum.StrEnum):
    """What becomes of the platform's token."""

    NONE = "none"  # it is the bearer token
    TOKEN_EXCHANGE = "token-exchange"  # noqa: S105 - RFC 8693: it is exchanged at the provider
    CLIENT_ASSERTION = "client-assertion"  # RFC 7523 section 2.2: it authenticates the client for client credentials


class AssertionAudience(enum.StrEnum):
    """The audience of an application's assertions."""

    TOKEN_ENDPOINT = "token-endpoint"  # noqa: S105 - a place, not a token
    """The provider's token endpoint, as OpenID Connect Core 1.0 section 9 has it."""
    CALLED_ENDPOINT = "called-endpoint"
    """The endpoint that each goes to; only revocation and device sign-in differ from the token endpoint."""
    ISSUER = "issuer"
    """The provider itself."""


DEFAULT_URI: Final = "grpc://localhost:50051"
DEFAULT_SCOPE: Final = "openid email profile offline_access"
PRESET_ORIGIN: Final = "preset "
# Variables that may hold a secret.
SECRET_VARIABLES: Final = ("MICROMEGAS_OIDC_CLIENT_SECRET", "MICROMEGAS_OIDC_PROXY")

# The sign-in itself makes these; another value would undo a check.
PROTECTED_PARAMETERS: Final = frozenset(
    {
        "client_id",
        "client_secret",
        "code_challenge",
        "code_challenge_method",
        "nonce",
        "redirect_uri",
        "request",
        "request_uri",
        "response_mode",
        "response_type",
        "state",
    }
)
_PARAMETERS_WITH_A_SETTING: Final = frozenset({"audience", "resource", "scope"})
_MAX_PARAMETERS: Final = 32
_PROXY_HOST: Final = re.compile(r"[A-Za-z0-9._:%-]+")


def as_path(value: object, key: str) -> PurePath:
    """Return a file's path; `~` in it is for the reader of the file."""
    return PurePath(as_text(value, key))


def as_secret(value: object, key: str) -> Secret:
    """Return a secret text."""
    value = Secret(value) if is_text(value) else None  # or a traceback would show it
    if value is None:
        raise ConfigurationError(f"{key} is not a text of printable characters.", key=key)
    return value


def as_proxy(value: object, key: str) -> Secret:
    """Return a proxy's address, which may hold a password and is never shown."""
    value = Secret(value) if is_text(value) else None  # or a traceback would show it
    if value is None or not _is_proxy(value):
        raise ConfigurationError(
            f"{key} is not the address of a proxy.",
            key=key,
            remedy="Write http://host:port or https://host:port, with user:password@ before the host where the proxy "
            "requires them; special characters in these are percent-encoded.",
        )
    return value


def _is_proxy(address: Secret) -> bool:
    parts = _split_url(address.reveal(), forbidden=' \\"<>?#')
    if parts is None or not parts.hostname or not _PROXY_HOST.fullmatch(parts.hostname):
        return False
    return parts.scheme in {"http", "https"} and parts.path in {"", "/"}


def _split_url(text: str, *, forbidden: str) -> SplitResult | None:
    """Return the parts of an ASCII URL; None when it is none, has port 0 or a forbidden character."""
    try:
        parts = urlsplit(text)
        is_valid = parts.port != 0 and bool(parts.scheme)
    except ValueError:
        return None
    return parts if is_valid and text.isascii() and not set(text) & set(forbidden) else None


def as_resource(value: object, key: str) -> str:
    """Return a resource: an absolute URI without a fragment (RFC 8707 section 2)."""
    resource = as_text(value, key)
    if _split_url(resource, forbidden="# ") is None:
        raise ConfigurationError(f"{key} is not an absolute URI without a fragment.", key=key)
    return resource


def as_redirect_uri(value: object, key: str) -> str:
    """Return a redirect address on loopback (RFC 8252 section 7.3)."""
    uri = as_text(value, key)
    parts = _split_url(uri, forbidden="?#@ ")
    if parts is None or parts.scheme != "http" or parts.hostname not in LOOPBACK_HOSTS:
        raise ConfigurationError(
            f"{key} is not an http URL on this machine without query, fragment and user.",
            key=key,
            remedy="Write one such as http://127.0.0.1:48080/callback, as it is registered at the provider.",
        )
    return uri


def as_authorize_params(value: object, key: str) -> tuple[tuple[str, str], ...]:
    """Return further parameters of the authorization request."""
    named = as_named(value, key)
    if len(named) > _MAX_PARAMETERS:
        raise ConfigurationError(f"{key} has more than {_MAX_PARAMETERS} parameters.", key=key)
    for name in named:
        if name in PROTECTED_PARAMETERS:
            raise ConfigurationError(f"{key}.{name} cannot be set: each sign-in makes its own.", key=f"{key}.{name}")
        if name in _PARAMETERS_WITH_A_SETTING:
            raise ConfigurationError(
                f"{key}.{name} cannot be set here.", key=f"{key}.{name}", remedy=f"Use the setting {name} instead."
            )
    return tuple(sorted((name, as_text(text, f"{key}.{name}")) for name, text in named.items()))


def as_flow(value: object, key: str) -> Flow | None:
    """Return the chosen flow, None for `auto`."""
    name = as_type(value, key, kind=Literal["auto", "browser", "device", "paste", "hub"])
    return None if name == "auto" else Flow(name)


# RFC 6749 section 3.3.
_NAMES = r"^[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*\Z"
as_scope = partial(
    as_type, kind=Annotated[str, Meta(pattern=_NAMES, description="a list of names separated by single spaces")]
)
as_timeout_seconds = partial(as_type, kind=Annotated[float, Meta(ge=1, le=60)])
as_algorithm = partial(as_type, kind=Literal[tuple(sorted(SIGNATURE_ALGORITHMS))])


def _setting(reader: Callable[[Any, str], Any], *sources: str, default: Any = None) -> Any:
    """Declare a setting: what checks its value, and the variable and the member of `config.json` that set it."""
    variable = next((name for name in sources if name.startswith("MICROMEGAS_")), None)
    member = next((name for name in sources if name != variable), None)
    metadata = {"reader": reader, "variable": variable, "member": member}
    return field(default=default, repr=reader not in {as_secret, as_proxy}, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSetting:
    """How a program signs in with the identity that its platform gives it.

    Attributes:
        platform: Who vouches for it.
        exchange: What becomes of the platform's token.
        audience: The audience to request for the platform's token.
        token_file: Where Kubernetes puts the token.
        managed_identity_client_id: Which of several identities, at Azure.
    """

    platform: WorkloadPlatform = _setting(
        partial(as_choice, choices=WorkloadPlatform), "MICROMEGAS_OIDC_WORKLOAD", "workload.platform"
    )
    exchange: WorkloadExchange = _setting(
        partial(as_choice, choices=WorkloadExchange),
        "MICROMEGAS_OIDC_WORKLOAD_EXCHANGE",
        "workload.exchange",
        default=WorkloadExchange.NONE,
    )
    audience: str | None = _setting(as_text, "MICROMEGAS_OIDC_WORKLOAD_AUDIENCE", "workload.audience")
    token_file: PurePath | None = _setting(as_path, "MICROMEGAS_OIDC_WORKLOAD_TOKEN_FILE", "workload.token_file")
    managed_identity_client_id: str | None = _setting(
        as_text, "MICROMEGAS_OIDC_WORKLOAD_CLIENT_ID", "workload.client_id"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateKeySetting:
    """The key with which the application authenticates (`private_key_jwt`, RFC 7523 section 2.2).

    Attributes:
        file: A PEM or JWK file that only its owner can read.
        key_id: The key's id at the provider; taken from the JWK when None.
        algorithm: The signature algorithm; the usual one of the key's type when None.
        audience: The audience of its assertions.
    """

    file: PurePath = _setting(as_path, "MICROMEGAS_OIDC_PRIVATE_KEY_FILE", "private_key_file")
    key_id: str | None = _setting(as_text, "MICROMEGAS_OIDC_PRIVATE_KEY_ID", "private_key_id")
    algorithm: str | None = _setting(as_algorithm, "MICROMEGAS_OIDC_PRIVATE_KEY_ALGORITHM", "private_key_algorithm")
    audience: AssertionAudience = _setting(
        partial(as_choice, choices=AssertionAudience),
        "MICROMEGAS_OIDC_PRIVATE_KEY_AUDIENCE",
        "private_key_audience",
        default=AssertionAudience.TOKEN_ENDPOINT,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """Where to connect and how to sign in.

    Attributes:
        uri: The Flight SQL server.
        issuer: The OpenID provider; None means no sign-in.
        client_id: The application's id at that provider; None means no sign-in.
        client_secret: For service accounts, and for providers that require one of native applications.
        client_secret_file: A file that holds the client secret, instead of `client_secret`.
        private_key: The application's key, instead of a client secret.
        api_key_file: A file that holds an API key, instead of signing in.
        service_account_file: A Google service account's key file, instead of signing in.
        workload: How the program signs in with its platform's identity, instead of a person.
        audience: Requested when signing in, for providers that need it.
        resource: Requested when signing in, at providers that take it in place of an audience (RFC 8707).
        scope: Requested when signing in.
        bearer: Which token the server wants.
        redirect_uri: The loopback address registered at providers that compare its port.
        authorize_params: Further parameters of the authorization request, as pairs.
        flow: How to sign in, chosen by variable or profile; None leaves it to the runtime environment.
        storage: Where a person's sign-in is stored.
        ca_bundle: A PEM file of authorities to trust besides the usual ones.
        client_certificate_file: A PEM file of the certificate that is shown to a server which requires one.
        client_key_file: A PEM file of its key.
        proxy: The proxy to the identity provider, instead of the environment's; it may hold a password.
        provider_timeout_seconds: How long each call to the identity provider may take.
        profile: The chosen profile's name, None for the flat configuration.
        preset: The provider preset that filled in what was not set; None when none fits.
        secret_is_native: Whether the client secret belongs to an application that people sign in with, so that it
            makes no service account.
        as_service_account: Whether the configured service account signs in although a person may be signed in.
        origins: Where each setting that is not a default came from, as pairs of field and origin: the variable's
            name, the member of `config.json`, or the preset.
    """

    uri: str = _setting(as_text, "MICROMEGAS_ANALYTICS_URI", "uri", default=DEFAULT_URI)
    issuer: str | None = _setting(as_issuer, "MICROMEGAS_OIDC_ISSUER", "issuers[0].issuer")
    client_id: str | None = _setting(as_text, "MICROMEGAS_OIDC_CLIENT_ID", "client_id")
    client_secret: Secret | None = _setting(as_secret, "MICROMEGAS_OIDC_CLIENT_SECRET")
    client_secret_file: PurePath | None = _setting(as_path, "MICROMEGAS_OIDC_CLIENT_SECRET_FILE", "client_secret_file")
    private_key: PrivateKeySetting | None = None
    api_key_file: PurePath | None = _setting(as_path, "api_key_file")
    service_account_file: PurePath | None = _setting(
        as_path, "MICROMEGAS_OIDC_SERVICE_ACCOUNT_FILE", "service_account_file"
    )
    workload: WorkloadSetting | None = None
    audience: str | None = _setting(as_text, "MICROMEGAS_OIDC_AUDIENCE", "issuers[0].audience")
    resource: str | None = _setting(as_resource, "MICROMEGAS_OIDC_RESOURCE", "issuers[0].resource")
    scope: str = _setting(as_scope, "MICROMEGAS_OIDC_SCOPE", "issuers[0].scope", default=DEFAULT_SCOPE)
    bearer: Bearer = _setting(
        partial(as_choice, choices=Bearer), "MICROMEGAS_OIDC_BEARER", "issuers[0].bearer", default=Bearer.ID_TOKEN
    )
    redirect_uri: str | None = _setting(as_redirect_uri, "MICROMEGAS_OIDC_REDIRECT_URI", "issuers[0].redirect_uri")
    authorize_params: tuple[tuple[str, str], ...] = _setting(
        as_authorize_params, "issuers[0].authorize_params", default=()
    )
    flow: Flow | None = _setting(as_flow, "MICROMEGAS_OIDC_FLOW", "flow")
    storage: TokenStorage = _setting(
        partial(as_choice, choices=TokenStorage), "MICROMEGAS_TOKEN_STORAGE", "token_storage", default=TokenStorage.FILE
    )
    ca_bundle: PurePath | None = _setting(as_path, "MICROMEGAS_CA_BUNDLE", "ca_bundle")
    client_certificate_file: PurePath | None = _setting(
        as_path, "MICROMEGAS_CLIENT_CERTIFICATE_FILE", "client_certificate_file"
    )
    client_key_file: PurePath | None = _setting(as_path, "MICROMEGAS_CLIENT_KEY_FILE", "client_key_file")
    proxy: Secret | None = _setting(as_proxy, "MICROMEGAS_OIDC_PROXY", "proxy")
    provider_timeout_seconds: float = _setting(
        as_timeout_seconds, "MICROMEGAS_OIDC_TIMEOUT_SECONDS", "timeout_seconds", default=10.0
    )
    profile: str | None = None
    preset: str | None = None
    secret_is_native: bool = False
    as_service_account: bool = False
    origins: tuple[tuple[str, str], ...] = field(default=(), compare=False, repr=False)

    @property
    def token_file_name(self) -> str:
        """The token file's name in the configuration folder: upstream's name for the same profile."""
        return "tokens.json" if self.profile is None else f"tokens-{self.profile}.json"

    def origin_of(self, name: str) -> str | None:
        """Return where the setting of that field came from, None for a default."""
        return dict(self.origins).get(name)


RESULT_ROWS_VARIABLE: Final = "MICROMEGAS_RESULT_ROWS"
DEFAULT_RESULT_ROWS: Final = 1_000
MAX_RESULT_ROWS: Final = 10_000


def parse_result_rows(environ: Mapping[str, str]) -> int:
    """Return how many rows at most go to the browser; 0 leaves it at the preview."""
    text = environ.get(RESULT_ROWS_VARIABLE, "")
    if not text:
        return DEFAULT_RESULT_ROWS
    return parse_count(text, RESULT_ROWS_VARIABLE, minimum=0, maximum=MAX_RESULT_ROWS)
