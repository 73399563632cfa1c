"""Who makes a call: reads the one `authorization` header and asks the validator.

What makes a token acceptable is the validator's knowledge; refusals become statuses in `statuses`.
"""

import asyncio
import base64
import binascii
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from micromegas_jupyter.contracts import AuthContext, AuthType, Secret, TokenValidator
from micromegas_jupyter.errors import Rejected, Unavailable
from micromegas_jupyter.server.headers import Headers

_ANYONE: Final = AuthContext(subject="anonymous", issuer="none", auth_type=AuthType.NONE, is_admin=True)
_VALIDATION_THREADS: Final = 4
_MAX_WAITING: Final = 256
_CREDENTIAL: Final = re.compile(r"([A-Za-z]{1,16}) ([!-~]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """The one credential of a call: the scheme in lower case, and what follows it."""

    scheme: str
    text: Secret = field(repr=False)


class Authenticator:
    """Tells who makes a call.

    Checks that need signature work or the network run on threads of their own, so that they neither hold up the
    event loop nor take the threads of anything else. Everything but those threads belongs to the event loop.

    Args:
        validator: Answers who bears a token; None lets everyone in as administrator. Closed by its owner.
        check_seconds: How long a check may take.
    """

    def __init__(self, validator: TokenValidator | None, *, check_seconds: float) -> None:
        self._validator = validator
        self._check_seconds = check_seconds
        self._threads = ThreadPoolExecutor(_VALIDATION_THREADS, thread_name_prefix="token-check")
        self._waiting = 0

    async def authenticate(self, headers: Headers) -> AuthContext:
        """Return the caller of a call with these headers: exactly one `authorization`, of the `Bearer` scheme.

        Raises:
            Rejected: No, several or an unacceptable credential.
            Unavailable: The credential could not be checked now.
        """
        if self._validator is None:
            return _ANYONE
        credential = parse_authorization(headers)
        if credential.scheme != "bearer":
            raise Rejected(reason="scheme")
        return await self._validate(credential.text.reveal(), self._validator)

    async def exchange(self, headers: Headers) -> tuple[AuthContext, Secret]:
        """Return the caller and the bearer token for later calls, from a `Bearer` or `Basic` credential.

        With `Basic` the password is the token or API key; the user name says nothing.

        Raises:
            Rejected: No, several or an unacceptable credential.
            Unavailable: The credential could not be checked now.
        """
        if self._validator is None:
            return _ANYONE, Secret(_ANYONE.subject)
        credential = parse_authorization(headers)
        match credential.scheme:
            case "bearer":
                token = credential.text
            case "basic":
                token = _password(credential.text)
            case _:
                raise Rejected(reason="scheme")
        return await self._validate(token.reveal(), self._validator), token

    def close(self) -> None:
        """Take no more checks; running ones end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _validate(self, token: str, validator: TokenValidator) -> AuthContext:
        cached = validator.cached_context(token)
        if cached is not None:
            return cached
        if self._waiting >= _MAX_WAITING:
            raise Unavailable("Too many credentials are being checked.")
        self._waiting += 1
        try:
            check = asyncio.get_running_loop().run_in_executor(self._threads, validator.validate_token, token)
            return await asyncio.wait_for(check, self._check_seconds)
        except TimeoutError:
            raise Unavailable("The credential could not be checked in time.") from None
        finally:
            self._waiting -= 1


def parse_authorization(headers: Headers) -> Credential:
    """Read the `authorization` header: exactly one value, a scheme, one space, printable ASCII.

    Source: RFC 9110 section 11.1 (the scheme is case-insensitive).

    Raises:
        Rejected: Not so.
    """
    values = headers.get("authorization", ())
    if not values:
        raise Rejected("The call carries no credential.", reason="missing")
    if len(values) > 1:
        raise Rejected(reason="several")
    found = _CREDENTIAL.fullmatch(values[0])
    if found is None:
        raise Rejected(reason="malformed")
    return Credential(scheme=found[1].lower(), text=Secret(found[2]))


def _password(text: Secret) -> Secret:
    """Return the password of a Basic credential (RFC 7617); it must be fit to go back as a header.

    Arrow's Go clients leave the padding out.
    """
    encoded = text.reveal().rstrip("=")
    try:
        decoded = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        raise Rejected(reason="malformed") from None
    password = decoded.partition(":")[2]
    if re.fullmatch(r"[!-~]+", password) is None:
        raise Rejected(reason="malformed")
    return Secret(password)
