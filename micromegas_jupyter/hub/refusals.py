"""What the service answers when it gives nothing: one class, and one function for each reason.

Turning a refusal into JSON is the handlers' job, telling the audit log is theirs, too.
"""

from dataclasses import dataclass
from typing import Final

_ADMIN_HINT: Final = "Tell whoever runs this JupyterHub (docs/jupyterhub.md)."
_SIGN_IN_HINT: Final = "Open the Hub's home page in the browser, sign out there and sign in again."
DANGEROUS_SCOPES: Final = ("admin:auth_state", "admin:users")
"""Scopes by which whoever has them reads people's refresh tokens at the Hub; the second includes the first."""


@dataclass(kw_only=True, eq=False)
class Refused(Exception):
    """The service gives nothing.

    Attributes:
        status: The HTTP status.
        error: A fixed word for programs and the audit log.
        message: One sentence: what happened.
        remedy: What to do next.
        retry_after_seconds: When the same call may work, where waiting helps.
        has_audit_line: Whether the audit log is told of each one.
    """

    status: int
    error: str
    message: str
    remedy: str
    retry_after_seconds: int | None = None
    has_audit_line: bool = True

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}"


def invalid_token() -> Refused:
    """No Hub token came with the call, or one that the Hub does not know any more."""
    return Refused(
        status=401,
        error="invalid_token",
        message="JupyterHub does not know the token of this server any more.",
        remedy="The server was stopped or replaced. Start it again at the Hub's home page.",
    )


def not_a_user() -> Refused:
    """The Hub token is a service's."""
    return Refused(
        status=403,
        error="not_a_user",
        message="This JupyterHub token belongs to a service, not to a person.",
        remedy="Call from a person's own server.",
    )


def not_their_server() -> Refused:
    """The Hub token is a person's, but was given to a program that may not use the person's own server."""
    return Refused(
        status=403,
        error="not_their_server",
        message="This JupyterHub token was given to another program than the person's own server.",
        remedy="Call from a kernel or a terminal of the person's own server.",
    )


def dangerous_role(scope: str) -> Refused:
    """The Hub token could read people's refresh tokens by itself."""
    return Refused(
        status=403,
        error="dangerous_role",
        message=(
            f"The Hub gives this server the scope {scope}, with which any code in it could read refresh tokens. "
            "The service gives no token to such a server."
        ),
        remedy=f"Take {scope} out of the roles of users and servers. {_ADMIN_HINT}",
    )


def no_auth_state(bearer: str) -> Refused:
    """The Hub keeps no token of that person that could be sent to a server."""
    return Refused(
        status=409,
        error="no_auth_state",
        message=f"JupyterHub keeps no {bearer} of yours that says when it ends.",
        remedy=(
            f"{_SIGN_IN_HINT} If that does not help, the Hub's sign-in asks for too little: its scope needs openid, "
            "and auth state has to be enabled."
        ),
    )


def sign_in_again() -> Refused:
    """The sign-in at the Hub has ended at the identity provider."""
    return Refused(
        status=409,
        error="sign_in_again",
        message="Your sign-in at JupyterHub has ended at the identity provider.",
        remedy=f"{_SIGN_IN_HINT} Kernels go on where they are.",
    )


def not_renewed(bearer: str) -> Refused:
    """The provider renews the sign-in and brings no new token of the kind that kernels get."""
    return Refused(
        status=409,
        error="not_renewed",
        message=f"The identity provider renews your sign-in without a new {bearer}, and the last one has ended.",
        remedy=f"{_SIGN_IN_HINT} The Hub can give kernels tokens of the other kind (bearer). {_ADMIN_HINT}",
    )


def slow_down(seconds: int) -> Refused:
    """The caller asks too often."""
    return Refused(
        status=429,
        error="slow_down",
        message="This server asks for tokens too often.",
        remedy=f"Wait {seconds} seconds; one token serves all calls until it ends.",
        retry_after_seconds=seconds,
    )


def too_many_unknown_tokens(seconds: int) -> Refused:
    """Too many tokens came that the Hub does not know; there may be very many of these calls."""
    return Refused(
        status=429,
        error="slow_down",
        message="Too many calls came here with tokens that JupyterHub does not know.",
        remedy=f"Wait {seconds} seconds. A server that was just started is let in then.",
        retry_after_seconds=seconds,
        has_audit_line=False,
    )


def hub_unavailable() -> Refused:
    """The Hub does not answer the service."""
    return Refused(
        status=503,
        error="hub_unavailable",
        message="JupyterHub does not answer its sign-in service.",
        remedy="Try again in a moment.",
        retry_after_seconds=2,
    )


def provider_unavailable() -> Refused:
    """The identity provider does not answer, and what the Hub keeps has ended."""
    return Refused(
        status=503,
        error="provider_unavailable",
        message="The identity provider does not answer, and the token that JupyterHub keeps has ended.",
        remedy="Your sign-in is not at fault. Try again in a moment.",
        retry_after_seconds=5,
    )


def exchange_refused(what: str) -> Refused:
    """The provider does not exchange the person's token."""
    return Refused(
        status=409,
        error="exchange_refused",
        message=what,
        remedy=f"The identity provider has to let the Hub's application exchange tokens (RFC 8693). {_ADMIN_HINT}",
    )


def no_redirect() -> Refused:
    """The administrator has set no application or no public address for sign-ins by redirect."""
    return Refused(
        status=409,
        error="no_redirect",
        message="This JupyterHub offers no sign-in by redirect for kernels.",
        remedy=f"Sign in by device code. The Hub needs redirect_client_id and public_url for it. {_ADMIN_HINT}",
    )


def unknown_sign_in() -> Refused:
    """There is no such sign-in, none any more, or it is somebody else's; which of them is not said."""
    return Refused(
        status=404,
        error="unknown_sign_in",
        message="This sign-in is not waiting any more.",
        remedy="Start the sign-in again.",
    )


def bad_request(message: str) -> Refused:
    """The call cannot be understood."""
    return Refused(
        status=400,
        error="invalid_request",
        message=message,
        remedy="Use the same version of micromegas_jupyter in the kernel and at the Hub.",
    )
