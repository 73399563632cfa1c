"""The client half's settings: where to connect, how to sign in, how many rows a notebook shows."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

from micromegas_jupyter.config.decoding import parse_count
from micromegas_jupyter.core.protocols import Secret


class Flow(enum.StrEnum):
    """The ways in which a person signs in."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSetting:
    """How a program signs in as what its platform says it is.

    Attributes:
        platform: Who vouches for it.
        exchange: What becomes of the platform's token.
        audience: What the platform's token is asked for.
        token_file: Where Kubernetes puts the token.
        managed_identity_client_id: Which of several identities, at Azure.
    """

    platform: WorkloadPlatform
    exchange: WorkloadExchange = WorkloadExchange.NONE
    audience: str | None = None
    token_file: PurePath | None = None
    managed_identity_client_id: str | None = None


class AssertionAudience(enum.StrEnum):
    """Whom an application's assertions are made out to."""

    TOKEN_ENDPOINT = "token-endpoint"  # noqa: S105 - a place, not a token
    """The provider's token endpoint, as OpenID Connect Core 1.0 section 9 has it."""
    CALLED_ENDPOINT = "called-endpoint"
    """The endpoint that each goes to; only revocation and device sign-in differ from the token endpoint."""
    ISSUER = "issuer"
    """The provider itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateKeySetting:
    """The key with which the application proves itself (`private_key_jwt`, RFC 7523 section 2.2).

    Attributes:
        file: A PEM or JWK file that only its owner can read.
        key_id: The key's id at the provider; taken from the JWK when None.
        algorithm: The signature algorithm; the usual one of the key's type when None.
        audience: Whom its assertions are made out to.
    """

    file: PurePath
    key_id: str | None = None
    algorithm: str | None = None
    audience: AssertionAudience = AssertionAudience.TOKEN_ENDPOINT


DEFAULT_URI = "grpc://localhost:50051"
DEFAULT_SCOPE = "openid email profile offline_access"
DEFAULT_PROVIDER_TIMEOUT_SECONDS = 10.0
PRESET_ORIGIN = "preset "
# Variables that may hold a secret.
SECRET_VARIABLES = ("MICROMEGAS_OIDC_CLIENT_SECRET", "MICROMEGAS_OIDC_PROXY")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """Where to connect and how to sign in.

    Attributes:
        uri: The Flight SQL server.
        issuer: The OpenID provider; None means no sign-in.
        client_id: The application's id at that provider; None means no sign-in.
        client_secret: For service accounts, and for providers that want one from native applications.
        audience: Asked for when signing in, for providers that need it.
        scope: What is asked for when signing in.
        api_key_file: A file that holds an API key, instead of signing in.
        profile: The chosen profile's name, None for the flat configuration.
        preset: The provider preset that filled in what was not set; None when none fits.
        bearer: Which token the server wants.
        resource: Asked for when signing in, at providers that take it in place of an audience (RFC 8707).
        redirect_uri: The loopback address registered at providers that compare its port.
        authorize_params: Further parameters of the authorization request, as pairs.
        flow: The way to sign in that was chosen by variable or profile; None leaves it to the runtime environment.
        client_secret_file: A file that holds the client secret, instead of `client_secret`.
        private_key: The application's key, instead of a client secret.
        service_account_file: A Google service account's key file, instead of signing in.
        workload: How the program signs in as its platform says, instead of a person.
        storage: Where a person's sign-in is kept.
        ca_bundle: A PEM file of authorities to trust besides the usual ones.
        client_certificate_file: A PEM file of the certificate that is shown to a server which asks for one.
        client_key_file: A PEM file of its key.
        proxy: The proxy to the identity provider, instead of the environment's; it may hold a password.
        provider_timeout_seconds: How long each call to the identity provider may take.
        secret_is_native: Whether the client secret belongs to an application that people sign in with, so that it
            makes no service account.
        as_service_account: Whether the configured service account signs in although a person may be signed in.
        origins: Where each setting that is not a default came from, as pairs of field and origin: the variable's
            name, the place in `config.json`, or the preset.
    """

    uri: str = DEFAULT_URI
    issuer: str | None = None
    client_id: str | None = None
    client_secret: Secret | None = field(default=None, repr=False)
    audience: str | None = None
    scope: str = DEFAULT_SCOPE
    api_key_file: PurePath | None = None
    profile: str | None = None
    preset: str | None = None
    bearer: Bearer = Bearer.ID_TOKEN
    resource: str | None = None
    redirect_uri: str | None = None
    authorize_params: tuple[tuple[str, str], ...] = ()
    flow: Flow | None = None
    client_secret_file: PurePath | None = None
    private_key: PrivateKeySetting | None = None
    service_account_file: PurePath | None = None
    workload: WorkloadSetting | None = None
    storage: TokenStorage = TokenStorage.FILE
    ca_bundle: PurePath | None = None
    client_certificate_file: PurePath | None = None
    client_key_file: PurePath | None = None
    proxy: Secret | None = field(default=None, repr=False)
    provider_timeout_seconds: float = DEFAULT_PROVIDER_TIMEOUT_SECONDS
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


RESULT_ROWS_VARIABLE = "MICROMEGAS_RESULT_ROWS"
DEFAULT_RESULT_ROWS = 1_000
MAX_RESULT_ROWS = 10_000


def parse_result_rows(environ: Mapping[str, str]) -> int:
    """Return how many rows at most go to the browser; 0 leaves it at the preview."""
    text = environ.get(RESULT_ROWS_VARIABLE, "")
    if not text:
        return DEFAULT_RESULT_ROWS
    return parse_count(text, RESULT_ROWS_VARIABLE, minimum=0, maximum=MAX_RESULT_ROWS)
