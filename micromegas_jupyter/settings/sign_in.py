"""What a person or a program can choose about signing in, as values.

Which variables and members name them is `client`'s job; what follows from them is `auth`'s and `assembly`'s.
"""

import enum
from dataclasses import dataclass
from pathlib import PurePath


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
    KEYRING = "keyring"  # the operating system's keyring; a file where there is no usable one


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
