"""The device flow (RFC 8628) without I/O: a user signs in on any device with a short code."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from micromegas_jupyter.core.system import Secret, secret_object
from micromegas_jupyter.core.text import check_endpoint_url, is_loopback_url
from micromegas_jupyter.errors import LoginRefused, LoginTimedOut, ProviderMisbehaved
from micromegas_jupyter.oidc.authorization import complete_scope, read_lifetime, read_token, resource_fields

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
DEFAULT_INTERVAL_SECONDS = 5.0
MIN_INTERVAL_SECONDS = 1.0
MAX_LIFETIME_SECONDS = 3600.0
MAX_USER_CODE_CHARACTERS = 64

_ANSWER = "device answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceAuthorization:
    """A started device authorization: what to show to the user, and the device code for polling."""

    device_code: Secret
    user_code: str = field(repr=False)
    verification_uri: str
    verification_uri_complete: str | None = field(default=None, repr=False)
    expires_at: datetime
    interval_seconds: float = DEFAULT_INTERVAL_SECONDS
    resource: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePending:
    """The user hasn't finished yet."""

    slow_down: bool = False


def build_device_request(
    *, client_id: str, scope: str, audience: str | None, resource: str | None
) -> dict[str, str | Secret]:
    """Return the fields that start a sign-in.

    The client ID is always included, because some providers (Google) ignore the authorization header here. Source: RFC
    8628 section 3.1; RFC 8707; `audience` as in Auth0.
    """
    return {
        "client_id": client_id,
        "scope": complete_scope(scope),
        **resource_fields(resource),
        **({"audience": audience} if audience else {}),
    }


def parse_device_answer(
    body: object, *, issuer: str, now: datetime, resource: str | None = None
) -> DeviceAuthorization:
    """Parse the device authorization response.

    The address may be called `verification_url`, as in Google's response. An invalid complete address is omitted.
    Source: RFC 8628 sections 3.2, 3.3.1, and 5.3.
    """
    body = secret_object(body)
    if body is None:
        raise ProviderMisbehaved("The identity provider's device response is not a JSON object.")
    device_code = read_token(body, "device_code", answer=_ANSWER)
    lifetime_seconds = read_lifetime(body.get("expires_in"), answer=_ANSWER)
    if device_code is None or not lifetime_seconds:
        raise ProviderMisbehaved("The identity provider's device response lacks a code or its lifetime.")
    lifetime_seconds = min(lifetime_seconds, MAX_LIFETIME_SECONDS)
    interval_seconds = read_lifetime(body.get("interval"), answer=_ANSWER, name="interval")
    if interval_seconds is None:
        interval_seconds = DEFAULT_INTERVAL_SECONDS
    return DeviceAuthorization(
        device_code=device_code,
        user_code=_user_code(body.get("user_code")),
        verification_uri=_shown_address(body.get("verification_uri", body.get("verification_url")), issuer),
        verification_uri_complete=_complete_address(body.get("verification_uri_complete"), issuer),
        expires_at=now + timedelta(seconds=lifetime_seconds),
        interval_seconds=min(max(interval_seconds, MIN_INTERVAL_SECONDS), lifetime_seconds),
        resource=resource or None,
    )


def build_device_token_request(authorization: DeviceAuthorization) -> dict[str, str | Secret]:
    """Return the fields of a poll request. Source: RFC 8628 section 3.4; RFC 8707 section 2.2."""
    return {
        "grant_type": DEVICE_GRANT,
        "device_code": authorization.device_code,
        **resource_fields(authorization.resource),
    }


def parse_device_token_error(body: object) -> DevicePending | LoginRefused | LoginTimedOut | None:
    """Return the meaning of an error in this flow (RFC 8628 section 3.5), or None for general errors."""
    match body.get("error") if isinstance(body, dict) else None:
        case "authorization_pending":
            return DevicePending()
        case "slow_down":
            return DevicePending(slow_down=True)
        case "access_denied":
            return LoginRefused("The sign-in was denied.")
        case "expired_token":
            return LoginTimedOut("The code was not used in time.")
        case _:
            return None


def _user_code(value: object) -> str:
    cleaned = _printable(value).strip()
    if not 0 < len(cleaned) <= MAX_USER_CODE_CHARACTERS:
        raise ProviderMisbehaved(
            "The identity provider's device response does not contain a code that a user can type."
        )
    return cleaned


def _shown_address(value: object, issuer: str) -> str:
    address = _printable(value)
    check_endpoint_url(address)
    if address.lower().startswith("http:") and not is_loopback_url(issuer):
        raise ProviderMisbehaved("The identity provider's device response contains an address that does not use https.")
    return address


def _complete_address(value: object, issuer: str) -> str | None:
    try:
        return None if value is None else _shown_address(value, issuer)
    except ProviderMisbehaved:
        return None


def _printable(value: object) -> str:
    return "".join(c for c in value if c.isprintable()) if isinstance(value, str) else ""
