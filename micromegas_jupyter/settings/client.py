"""The client half's settings: where to connect and how to sign in.

Reading them from variables and `config.json` is `client_config`'s job.
"""

from dataclasses import dataclass, field
from pathlib import PurePath

from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.settings.sign_in import Bearer, Flow, PrivateKeySetting, TokenStorage, WorkloadSetting

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
        flow: The way to sign in that was chosen by variable or profile; None leaves it to the surroundings.
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
