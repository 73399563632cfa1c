"""What the sign-in service of JupyterHub refuses with, as errors that say what to do here and at the Hub.

The codes are the service's (docs/jupyterhub.md lists them). Its own sentences are not shown: what a person does next
depends on the code alone.
"""

from dataclasses import dataclass

from micromegas_jupyter.core.http import HUB_SERVICE as SERVICE
from micromegas_jupyter.core.http import HUB_UNAVAILABLE_REMEDY as UNAVAILABLE_REMEDY
from micromegas_jupyter.core.secrets import SecretObject
from micromegas_jupyter.errors import LoginRequired, MicromegasError, ProviderMisbehaved, ProviderUnavailable

HUB = "JupyterHub"
# What a service of another version may say.
NOT_UNDERSTOOD = frozenset({"invalid_request", "invalid_sign_in"})
UNKNOWN_SIGN_IN = "unknown_sign_in"

_OTHERWISE = "Until then %micromegas_login (`micromegas login` in a terminal) signs you in another way."
_NOT_FOUND = 404
_TOO_MANY_REQUESTS = 429
_CLIENT_ERRORS = range(400, 500)
_SERVER_ERRORS = range(500, 600)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One code: the error that it becomes.

    Attributes:
        error_class: Whether a person has to do something, or has to wait.
        what: What happened.
        remedy: What to do, and what the Hub's administrator can do.
    """

    error_class: type[LoginRequired] | type[ProviderUnavailable]
    what: str
    remedy: str

    def error(self) -> MicromegasError:
        """Return the error."""
        error = self.error_class(self.what, remedy=self.remedy)
        error.giver = HUB
        return error


REFUSALS: dict[str, Refusal] = {
    "invalid_token": Refusal(
        error_class=LoginRequired,
        what="JupyterHub does not accept this server's token any more.",
        remedy="Stop your server in the Hub's control panel and start it again.",
    ),
    "not_a_user": Refusal(
        error_class=LoginRequired,
        what="JupyterHub signs in people only, and this program's token is not a person's.",
        remedy="Run it in your own server, or give it a sign-in of its own (docs/service-accounts.md).",
    ),
    "not_their_server": Refusal(
        error_class=LoginRequired,
        what="JupyterHub signs in programs of a person's own server only.",
        remedy="Run it in a notebook or a terminal of your own server.",
    ),
    "dangerous_role": Refusal(
        error_class=LoginRequired,
        what="JupyterHub signs nobody in while a role lets servers read what it keeps of sign-ins.",
        remedy=f"Ask the Hub's administrator to take the scope admin:auth_state from users and servers. {_OTHERWISE}",
    ),
    "no_auth_state": Refusal(
        error_class=LoginRequired,
        what="JupyterHub keeps no sign-in of yours that it could hand on.",
        remedy="Log out of the Hub and in again. If that does not help, ask its administrator for an authenticator of "
        f"OAuthenticator with enable_auth_state (docs/jupyterhub.md). {_OTHERWISE}",
    ),
    "sign_in_again": Refusal(
        error_class=LoginRequired,
        what="Your sign-in at JupyterHub has ended.",
        remedy="Log out of the Hub and in again, then go on here.",
    ),
    "not_renewed": Refusal(
        error_class=LoginRequired,
        what="The identity provider renews your sign-in at JupyterHub without the token that the Hub hands on, and the "
        "last one has ended.",
        remedy="Log out of the Hub and in again. The Hub's administrator can hand on tokens of the other kind (bearer, "
        f"docs/jupyterhub.md). {_OTHERWISE}",
    ),
    "exchange_refused": Refusal(
        error_class=LoginRequired,
        what="The identity provider does not let JupyterHub exchange your token for one that the server takes.",
        remedy=f"Ask the Hub's administrator to have token exchange allowed for the Hub's application. {_OTHERWISE}",
    ),
    "no_redirect": Refusal(
        error_class=LoginRequired,
        what="JupyterHub has no redirect of its own for notebooks to sign in by.",
        remedy="Sign in with --flow device. The Hub's administrator can add redirect_client_id and public_url "
        "(docs/jupyterhub.md).",
    ),
    "slow_down": Refusal(
        error_class=ProviderUnavailable,
        what=f"{SERVICE} was asked too often.",
        remedy="Try again in a minute.",
    ),
    "hub_unavailable": Refusal(
        error_class=ProviderUnavailable,
        what=f"{SERVICE} cannot reach the Hub.",
        remedy=UNAVAILABLE_REMEDY,
    ),
    "provider_unavailable": Refusal(
        error_class=ProviderUnavailable,
        what="JupyterHub cannot reach the identity provider.",
        remedy="Your sign-in is not at fault. Try again in a moment.",
    ),
}
NO_SERVICE = Refusal(
    error_class=LoginRequired,
    what="JupyterHub has no sign-in service where this server was told to look for it.",
    remedy=f"Ask the Hub's administrator to add the service `micromegas` (docs/jupyterhub.md). {_OTHERWISE}",
)


def refusal_of(status: int, body: SecretObject | None) -> MicromegasError:
    """Return the error that an answer without success amounts to."""
    code = None if body is None else body.get("error")
    known = REFUSALS.get(code) if isinstance(code, str) else None
    if known is not None:
        return known.error()
    if status == _NOT_FOUND and body is None:
        return NO_SERVICE.error()
    if code in NOT_UNDERSTOOD:
        return unreadable()
    if status in _SERVER_ERRORS or status == _TOO_MANY_REQUESTS:
        error: MicromegasError = ProviderUnavailable(
            f"{SERVICE} answered with status {status}.", remedy=UNAVAILABLE_REMEDY
        )
    elif status in _CLIENT_ERRORS:
        error = LoginRequired(
            f"{SERVICE} refused this server (status {status}).",
            remedy=f"Ask the Hub's administrator to look at the service's log. {_OTHERWISE}",
        )
    else:
        return unreadable()
    error.giver = HUB
    return error


def unreadable() -> ProviderMisbehaved:
    """Return the error for an answer that is none of this service's."""
    error = ProviderMisbehaved(
        f"{SERVICE} gave an answer that cannot be used.",
        remedy="Tell the Hub's administrator: service and notebook may be of versions that do not fit.",
    )
    error.giver = HUB
    return error
