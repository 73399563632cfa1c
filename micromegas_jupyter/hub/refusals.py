"""Refusals of the service: one class, and one table of what each code says."""

from dataclasses import dataclass
from typing import Final

_ADMIN_HINT: Final = "Tell the administrator of this JupyterHub (docs/jupyterhub.md)."
_SIGN_IN_HINT: Final = "Open the Hub's home page in the browser, sign out there and sign in again."
_VERSION_HINT: Final = "Use the same version of micromegas_jupyter in the kernel and at the Hub."

REFUSALS: Final = {
    "invalid_token": (
        401,
        "JupyterHub no longer recognizes the token of this server.",
        "The server was stopped or replaced. Start it again from the Hub's home page.",
    ),
    "not_a_user": (
        403,
        "This JupyterHub token belongs to a service, not to a person.",
        "Call from a person's own server.",
    ),
    "not_their_server": (
        403,
        "This JupyterHub token was given to a program other than the person's own server.",
        "Call from a kernel or a terminal of the person's own server.",
    ),
    "dangerous_role": (
        403,
        (
            "The Hub gives this server the scope {scope}, which lets any code in it read refresh tokens. The service "
            "gives no token to such a server."
        ),
        "Remove {scope} from the roles of users and servers. " + _ADMIN_HINT,
    ),
    "no_auth_state": (
        409,
        "JupyterHub has no {bearer} of yours with an expiry time.",
        (
            f"{_SIGN_IN_HINT} If that does not help, the Hub's sign-in requests too little: its scope needs openid, "
            "and auth state has to be enabled."
        ),
    ),
    "sign_in_again": (
        409,
        "Your sign-in at JupyterHub has ended at the identity provider.",
        f"{_SIGN_IN_HINT} Kernels continue where they are.",
    ),
    "not_renewed": (
        409,
        "The identity provider renews your sign-in without a new {bearer}, and the last one has expired.",
        f"{_SIGN_IN_HINT} The Hub can give kernels the other kind of token (bearer). {_ADMIN_HINT}",
    ),
    "slow_down": (
        429,
        "This server requests tokens too often.",
        "Wait {seconds} seconds; one token serves all calls until it expires.",
    ),
    "hub_unavailable": (
        503,
        "JupyterHub does not answer its sign-in service.",
        "Try again in a moment.",
    ),
    "provider_unavailable": (
        503,
        "The identity provider does not answer, and the token that JupyterHub stores has expired.",
        "Your sign-in is not at fault. Try again in a moment.",
    ),
    "exchange_refused": (
        409,
        "{what}",
        "The identity provider has to let the Hub's application exchange tokens (RFC 8693). " + _ADMIN_HINT,
    ),
    "no_redirect": (
        409,
        "This JupyterHub offers no sign-in by redirect for kernels.",
        "Sign in by device code. The Hub needs redirect_client_id and public_url for it. " + _ADMIN_HINT,
    ),
    "unknown_sign_in": (404, "This sign-in is no longer waiting.", "Start the sign-in again."),
    "invalid_sign_in": (
        400,
        "The address for the browser is {what}.",
        "Get the service's redirect address and application again, and sign in with the Hub's own issuer.",
    ),
    "invalid_request": (400, "{what}", _VERSION_HINT),
    "internal_error": (500, "The service could not answer.", _VERSION_HINT),
}
_RETRY_AFTER_SECONDS: Final = {"hub_unavailable": 2, "provider_unavailable": 5}


@dataclass(kw_only=True, eq=False)
class Refused(Exception):
    """The service gives nothing.

    Attributes:
        status: The HTTP status.
        error: The code, for programs and the audit log.
        message: One sentence: what happened.
        remedy: What to do next.
        retry_after_seconds: When the same call may work, where waiting helps.
        is_audited: Whether each one gets a line in the audit log.
    """

    status: int
    error: str
    message: str
    remedy: str
    retry_after_seconds: int | None = None
    is_audited: bool = True

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}"


def refuse(error: str, **facts: object) -> Refused:
    """Return the refusal with this code; its sentences name the facts."""
    status, message, remedy = REFUSALS[error]
    return Refused(
        status=status,
        error=error,
        message=message.format(**facts),
        remedy=remedy.format(**facts),
        retry_after_seconds=_RETRY_AFTER_SECONDS.get(error),
    )


def slow_down(seconds: int) -> Refused:
    """Return the refusal of a person who calls too often."""
    refused = refuse("slow_down", seconds=seconds)
    refused.retry_after_seconds = seconds
    return refused


def too_many_unknown_tokens(seconds: int) -> Refused:
    """Return the refusal of a flood of unknown tokens, which must not flood the audit log too."""
    return Refused(
        status=429,
        error="slow_down",
        message="Too many calls came from here with tokens that JupyterHub does not recognize.",
        remedy=f"Wait {seconds} seconds. A server that was just started is let in then.",
        retry_after_seconds=seconds,
        is_audited=False,
    )
