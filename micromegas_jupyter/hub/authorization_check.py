"""Whether an address that a kernel wants a browser sent to is this Hub's own sign-in at its own provider.

The provider's endpoint comes from its discovery document, which `provider` fetches.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlsplit

from micromegas_jupyter.hub.refusals import Refused
from micromegas_jupyter.redirect.messages import MAX_AUTHORIZATION_CHARACTERS
from micromegas_jupyter.redirect.redirect_address import is_web_address

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_PARAMETERS: Final = 50
# 32 random bytes as unpadded base64url (RFC 9700 section 4.7, RFC 7636 section 4.2).
_LONG_ENOUGH: Final = re.compile(r"[A-Za-z0-9._~-]{43,512}", re.ASCII)
_REFUSED_PARAMETERS: Final = frozenset({"request", "request_uri", "response_mode"})
"""They could lead the browser, or its answer, elsewhere than the other parameters say (RFC 9101)."""


def check_authorization_url(url: object, *, endpoint: str, redirect_uri: str, client_id: str) -> str:
    """Return the state of an address that is fit for a browser of the owner.

    Raises:
        Refused: It is not at the provider's authorization endpoint, not for this Hub's redirect and application, not a
            code request with PKCE S256, or its state is too short.
    """
    if not isinstance(url, str) or len(url) > MAX_AUTHORIZATION_CHARACTERS or not is_web_address(url):
        raise _unfit("no address")
    base, _, query = url.partition("?")
    own_base, _, own_query = endpoint.partition("?")
    if base != own_base or urlsplit(url).fragment:
        raise _unfit("not at the Hub's identity provider")
    parameters = _read(query)
    if any(parameters.get(name) != value for name, value in _read(own_query).items()):
        raise _unfit("not at the Hub's identity provider")
    wanted = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "code_challenge_method": "S256",
    }
    wrong = next((name for name, value in wanted.items() if parameters.get(name) != value), None)
    if wrong is not None:
        raise _unfit(f"without the right {wrong}")
    if not _REFUSED_PARAMETERS.isdisjoint(parameters):
        raise _unfit("with a parameter that overrides others")
    for name in ("state", "code_challenge"):
        if _LONG_ENOUGH.fullmatch(parameters.get(name, "")) is None:
            raise _unfit(f"without a {name} of at least 43 characters")
    return parameters["state"]


def _read(query: str) -> Mapping[str, str]:
    """Return the parameters, each of which stands once."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError:
        raise _unfit("with too many parameters") from None
    parameters = dict(pairs)
    if len(parameters) != len(pairs):
        raise _unfit("with a parameter twice")
    return parameters


def _unfit(how: str) -> Refused:
    return Refused(
        status=400,
        error="invalid_sign_in",
        message=f"The address that the browser is to open is {how}.",
        remedy=(
            "Ask the service again for its redirect address and application, and sign in with the Hub's own issuer."
        ),
    )
