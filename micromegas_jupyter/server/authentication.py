"""Who makes a call: call metadata as values, the one credential, the validator's answer, attribution.

Identity headers (`x-auth-*`) are never read, so a client that sends them changes nothing.
"""

import asyncio
import base64
import binascii
import functools
import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final
from urllib.parse import unquote

from micromegas_jupyter.access.audit import AccessAudit, AccessEvent, CallFacts, Claimed, checking_for
from micromegas_jupyter.access.config import ReloadingValidator
from micromegas_jupyter.access.jwks import KeysPending
from micromegas_jupyter.access.validator import BaseValidator, CallLimits, Refused, Undecided, event_of
from micromegas_jupyter.config.access import RateLimits
from micromegas_jupyter.core.protocols import AuthContext, AuthType, TokenValidator
from micromegas_jupyter.core.system import Clock, HiddenText, Secret
from micromegas_jupyter.engine.contract import TimeRange
from micromegas_jupyter.errors import PermissionDenied, Rejected, ResourcesExhausted, Unavailable, UsageError
from micromegas_jupyter.executors.protocol import Statement
from micromegas_jupyter.flightsql.framing import Compression
from micromegas_jupyter.oidc.jwt import KeySet

COMPRESSION_HEADER: Final = "x-micromegas-compression"
UNKNOWN_ADDRESS: Final = "unknown"
# RFC 3339 section 5.6; "any fraction" because clients send nanoseconds.
_RFC3339: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d{1,12}))?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)
_MICROSECOND_DIGITS: Final = 6
_ADDRESS_WITH_PORT: Final = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\](?::[0-9]{1,5})?|(?P<v4>[0-9.]+):[0-9]{1,5})")
_ROW_LIMIT: Final = re.compile(r"[0-9]{1,18}")
_UNKNOWN: Final = "unknown"
_SERVICE_ACCOUNT: Final = "service-account"
_MAX_NAME_CHARACTERS: Final = 256
_NAME_HEADERS: Final = ("x-user-id", "x-user-email", "x-user-name")
_ANYONE: Final = AuthContext(subject="anonymous", issuer="none", auth_type=AuthType.NONE, is_admin=True)
_VALIDATION_THREADS: Final = 16
_MAX_CHECKS: Final = 1024
# One for the keys that there should be, one for newer ones, one for a change of settings meanwhile.
_MAX_KEY_WAITS: Final = 3
# So many calls may wait for one fetch as long as it lasts. Others wait briefly: at a start under load nearly all
# fetches end in time, and an issuer that does not answer must not fill the server with calls.
_MAX_PATIENT_WAITERS: Final = 256
_BRIEF_WAIT_SECONDS: Final = 1.0
_CREDENTIAL: Final = re.compile(r"([A-Za-z]{1,16}) ([!-~]+)")

Headers = Mapping[str, tuple[str, ...]]
CheckCaller = Callable[[AuthContext, Headers], None]


class ReceivedHeaders(dict[str, tuple[str, ...]]):
    """Headers that hold a credential; a verbose traceback shows their names only."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"ReceivedHeaders({', '.join(sorted(self))})"

    __str__ = __repr__


def group_headers(metadata: Iterable[tuple[str, str | bytes]] | None) -> Headers:
    """Return the text headers of a call, each with all its values in order; binary ones are left out."""
    grouped = ReceivedHeaders()
    for key, value in metadata or ():
        if isinstance(value, str):
            grouped[key] = (*grouped.get(key, ()), value)
    return grouped


def single_value(headers: Headers, name: str) -> str | None:
    """Return the value of a header that may be sent once only, None when it was not sent."""
    values = headers.get(name, ())
    if len(values) > 1:
        raise UsageError(f"The header {name} was sent {len(values)} times.", remedy="Send it once.")
    return values[0] if values else None


def parse_statement(headers: Headers, sql: str, caller: AuthContext, parameters: tuple[bytes, ...] = ()) -> Statement:
    """Return a statement with what `query_range_begin`, `query_range_end`, `limit` and `preserve_dictionary` say.

    One end of a range without the other is ignored, and an empty one counts as not sent, as upstream does.
    """
    limit = _first(headers, "limit")
    if limit is not None and _ROW_LIMIT.fullmatch(limit) is None:
        raise UsageError("The limit header is not a whole number.", remedy="Send decimal digits, or leave it out.")
    return Statement(
        sql=sql,
        caller=caller,
        parameters=parameters,
        time_range=_parse_time_range(headers),
        row_limit=None if limit is None else int(limit),
        preserve_dictionary=(_first(headers, "preserve_dictionary") or "").lower() == "true",
    )


def parse_compression(headers: Headers) -> Compression | None:
    """Read `x-micromegas-compression`: how the rows are to be compressed; `none` and nothing are the same."""
    match (_first(headers, COMPRESSION_HEADER) or "none").lower():
        case "none":
            return None
        case "lz4" | "zstd" as compression:
            return compression
        case _:
            raise UsageError(
                f"The header {COMPRESSION_HEADER} does not name a compression.",
                remedy="Send lz4, zstd or none, or leave it out.",
            )


def parse_client_tags(headers: Headers) -> dict[str, str]:
    """Return what the client says about itself in the `x-client-*` headers, under the names of the audit."""
    tags = {
        "client": _first(headers, "x-client-type") or _UNKNOWN,
        "agent": _first(headers, "x-client-agent") or _UNKNOWN,
        "entrypoint": _first(headers, "x-client-entrypoint") or _UNKNOWN,
    }
    optional = {name: _first(headers, f"x-client-{name}") for name in ("session", "notebook", "cell")}
    return tags | {name: value for name, value in optional.items() if value}


def find_client_address(peer: str, headers: Headers, trusted_proxies: frozenset[str]) -> str:
    """Return the client's IP address; forwarding headers count only when the peer is a trusted proxy.

    The last entry of `x-forwarded-for` is the proxy's own and may have a port. When it cannot be read, nothing else is
    believed: many proxies pass on an `x-real-ip` that the client made up. `peer` is gRPC's name, such as
    `ipv4:127.0.0.1:4711` or `ipv6:[::1]:4711`, perhaps percent-encoded.
    """
    return find_forwarded_address(_peer_address(peer), headers, trusted_proxies)


def find_forwarded_address(address: str, headers: Headers, trusted_proxies: frozenset[str]) -> str:
    """Return the client's IP address for that of the peer, in the same way."""
    if address not in trusted_proxies:
        return address
    forwarded = headers.get("x-forwarded-for")
    claimed = forwarded[-1].rpartition(",")[2] if forwarded else _first(headers, "x-real-ip") or ""
    return _address_without_port(claimed.strip()) or address


@functools.lru_cache(maxsize=1024)
def _peer_address(peer: str) -> str:
    kind, _, rest = peer.partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return UNKNOWN_ADDRESS
    address = rest.rpartition(":")[0].replace("%5B", "").replace("%5D", "").strip("[]")
    return address if _is_ip_address(address) else UNKNOWN_ADDRESS


def _address_without_port(text: str) -> str | None:
    """Return the address of `192.0.2.7`, `192.0.2.7:4711`, `2001:db8::7` or `[2001:db8::7]:4711`; else None."""
    if _is_ip_address(text):
        return text
    found = _ADDRESS_WITH_PORT.fullmatch(text)
    if found is None:
        return None
    address: str = found["v6"] or found["v4"]
    has_right_brackets = (":" in address) == (found["v6"] is not None)
    return address if has_right_brackets and _is_ip_address(address) else None


def _is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _first(headers: Headers, key: str) -> str | None:
    values = headers.get(key)
    return values[0] if values else None


def _parse_time_range(headers: Headers) -> TimeRange | None:
    begin_text, end_text = _first(headers, "query_range_begin"), _first(headers, "query_range_end")
    if not begin_text or not end_text:
        return None
    begin = _parse_time(begin_text, "query_range_begin", rounds_up=False)
    end = _parse_time(end_text, "query_range_end", rounds_up=True)
    if end < begin:
        raise UsageError("The query's time range ends before it begins.", remedy="Exchange begin and end.")
    return TimeRange(begin=begin, end=end)


def _parse_time(text: str, header: str, *, rounds_up: bool) -> datetime:
    """Read an RFC 3339 time; what is finer than a microsecond widens the range rather than losing rows."""
    found = _RFC3339.fullmatch(text)
    with suppress(ValueError, OverflowError):
        if found is not None:
            date, time, fraction, offset = found.groups()
            digits = (fraction or "").ljust(_MICROSECOND_DIGITS, "0")
            zone = "+00:00" if offset in {"Z", "z"} else offset
            parsed = datetime.fromisoformat(f"{date}T{time}.{digits[:_MICROSECOND_DIGITS]}{zone}")
            is_finer = digits[_MICROSECOND_DIGITS:].strip("0")
            return parsed + timedelta(microseconds=1) if rounds_up and is_finer else parsed
    raise UsageError(
        f"The header {header} is not a time.", remedy="Send RFC 3339 with an offset, such as 2026-11-24T12:00:00Z."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Who is behind a call, for the audit; `service_account_name` is the delegating API key's name."""

    user: str
    email: str
    name: str | None = None
    service_account_name: str | None = None


def resolve_attribution(caller: AuthContext, headers: Headers) -> Attribution:
    """Return whom a call is attributed to: the caller, or whom a delegating service names in `x-user-*` headers."""
    claimed_id = claimed_email = claimed_name = None
    if not headers.keys().isdisjoint(_NAME_HEADERS):
        claimed_id, claimed_email, claimed_name = (_decode_name(headers, name) for name in _NAME_HEADERS)
    if caller.auth_type is AuthType.NONE:
        return Attribution(user=claimed_id or _UNKNOWN, email=claimed_email or _UNKNOWN, name=claimed_name)
    if caller.auth_type is AuthType.API_KEY and caller.may_delegate:
        return Attribution(
            user=claimed_id or caller.subject,
            email=claimed_email or _SERVICE_ACCOUNT,
            name=claimed_name,
            service_account_name=caller.subject if claimed_id or claimed_email else None,
        )
    is_other_email = claimed_email is not None and caller.email is not None and claimed_email != caller.email
    if (claimed_id or caller.subject) != caller.subject or is_other_email:
        raise PermissionDenied("The call names a different user than the one who is signed in.", reason="impersonation")
    fallback = _SERVICE_ACCOUNT if caller.auth_type is AuthType.API_KEY else _UNKNOWN
    return Attribution(user=caller.subject, email=caller.email or fallback, name=claimed_name)


def claimed_names(headers: Headers) -> frozenset[str]:
    """Return the user and the address that a call names in `x-user-*` headers."""
    with suppress(UsageError):
        return frozenset(filter(None, (_decode_name(headers, name) for name in ("x-user-id", "x-user-email"))))
    return frozenset()


def _decode_name(headers: Headers, name: str) -> str | None:
    """Return a percent-encoded header's text; what does not decode stays as it was sent."""
    value = single_value(headers, name)
    if not value:
        return None
    try:
        text = unquote(value, errors="strict")
        is_readable = text.isprintable()
    except UnicodeDecodeError:
        text = value
        is_readable = text.isprintable() and text.isascii()
    if not is_readable or len(text) > _MAX_NAME_CHARACTERS:
        raise UsageError(
            f"The header {name} does not hold a printable name.",
            remedy=f"Send at most {_MAX_NAME_CHARACTERS} printable characters, percent-encoded in UTF-8.",
        )
    return text


class Authenticator:
    """Identifies callers, and turns away those who call too often; each refusal leaves one audit event.

    Checks run on threads of their own. A check that needs keys which are being fetched waits on the event loop, so
    that an issuer that does not answer takes no thread from the others. All else belongs to the event loop. Without
    a validator everyone is let in as administrator. `check_caller` may reject a caller whose credential is good.
    """

    def __init__(
        self,
        validator: TokenValidator | None,
        *,
        check_seconds: float,
        limits: CallLimits | None = None,
        check_caller: CheckCaller | None = None,
    ) -> None:
        self._validator = validator
        self._check_caller = check_caller
        self._check_seconds = check_seconds
        self._limits = limits
        self._threads = ThreadPoolExecutor(_VALIDATION_THREADS, thread_name_prefix="token-check")
        self._check_count = 0
        self._key_waiters: Counter[Future[KeySet | None]] = Counter()
        self._writes_events = isinstance(validator, BaseValidator)
        self._audit = validator.audit if isinstance(validator, BaseValidator) else AccessAudit()

    async def authenticate(self, headers: Headers, describe: Callable[[], CallFacts] = CallFacts) -> AuthContext:
        """Return the caller of a call with exactly one `authorization`, of the `Bearer` scheme."""
        return (await self.exchange(headers, describe, accepts_basic=False))[0]

    async def exchange(
        self, headers: Headers, describe: Callable[[], CallFacts] = CallFacts, *, accepts_basic: bool = True
    ) -> tuple[AuthContext, Secret]:
        """Return the caller and the bearer token for later calls; of a `Basic` credential that is the password.

        `describe` gathers the call's facts for audit events; it is not called for a caller who is known already.
        """
        if self._validator is None:
            return _ANYONE, Secret(_ANYONE.subject)
        try:
            token = _read_token(headers, accepts_basic=accepts_basic)
        except Rejected as error:
            self.record(describe(), "refused", reason=error.reason, code=error.code)
            raise
        hidden = HiddenText(token.reveal())
        caller = self._validator.cached_context(hidden)
        if caller is None:
            caller = await self._check(hidden, self._validator, describe())
        if self._limits is not None:
            try:
                self._limits.count_call(caller.issuer, caller.subject)
            except ResourcesExhausted as error:
                self.record(describe(), "limited", reason="calls_of_identity", code=error.code, caller=caller)
                raise
        self.check_again(caller, headers, describe)
        return caller, token

    def check_again(self, caller: AuthContext, headers: Headers, describe: Callable[[], CallFacts]) -> None:
        """Reject a caller who has lost access, also since the call began."""
        if self._check_caller is None:
            return
        try:
            self._check_caller(caller, headers)
        except Rejected as error:
            self.record(describe(), "refused", reason=error.reason, code=error.code, caller=caller)
            raise

    def record(
        self,
        call: CallFacts,
        outcome: str,
        *,
        reason: str | None = None,
        code: str | None = None,
        caller: AuthContext | None = None,
    ) -> None:
        """Write an audit event about a call."""
        who = Claimed() if caller is None else Claimed(issuer=caller.issuer, subject=caller.subject)
        with checking_for(call):
            self._audit.record(AccessEvent(outcome=outcome, reason=reason, code=code, who=who))

    def close(self) -> None:
        """Accept no more checks; running ones end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _check(self, token: str, validator: TokenValidator, call: CallFacts) -> AuthContext:
        if self._limits is None:
            return await self._validate(token, validator, call)
        address = call.client_address or UNKNOWN_ADDRESS
        try:
            self._limits.count_refusal(address)
        except ResourcesExhausted as error:
            self.record(call, "limited", reason="refusals_of_address", code=error.code)
            raise
        try:
            caller = await self._validate(token, validator, call)
        except Rejected:
            raise
        except BaseException:
            self._limits.forgive_refusal(address, is_accepted=False)
            raise
        self._limits.forgive_refusal(address)
        return caller

    async def _validate(self, token: str, validator: TokenValidator, call: CallFacts) -> AuthContext:
        if self._check_count >= _MAX_CHECKS:
            raise self._undecided("Too many credentials are being checked.", "too_many_checks", call)
        try:
            async with asyncio.timeout(self._check_seconds):
                for _ in range(_MAX_KEY_WAITS):
                    try:
                        return await self._validate_in_thread(token, validator, call)
                    except KeysPending as keys:
                        if not await self._wait_for_keys(keys.fetch):
                            break  # another try would only start the next fetch
                return await self._validate_in_thread(token, validator, call, is_last=True)
        except TimeoutError:
            raise self._undecided("The credential could not be checked in time.", "check_timed_out", call) from None
        except (Rejected, Unavailable) as error:
            if not self._writes_events:
                finding = (
                    Refused(reason=error.reason) if isinstance(error, Rejected) else Undecided(reason="unavailable")
                )
                with checking_for(call):
                    self._audit.record(event_of(finding, token))
            raise

    async def _validate_in_thread(
        self, token: str, validator: TokenValidator, call: CallFacts, *, is_last: bool = False
    ) -> AuthContext:
        check = partial(validator.validate_token, token)
        if isinstance(validator, BaseValidator):
            check = partial(validator.try_token, token, is_last=is_last)
        with checking_for(call):
            run_in_context = copy_context().run
        self._check_count += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, run_in_context, check)
        finally:
            self._check_count -= 1

    async def _wait_for_keys(self, fetch: Future[KeySet | None]) -> bool:
        """Wait for a fetch and return whether it brought keys; when too many wait, only briefly."""
        is_patient = self._key_waiters[fetch] < _MAX_PATIENT_WAITERS
        self._key_waiters[fetch] += 1
        try:
            async with asyncio.timeout(None if is_patient else _BRIEF_WAIT_SECONDS):
                await asyncio.shield(asyncio.wrap_future(fetch))  # others wait for it as well
        except TimeoutError:
            return False
        finally:
            self._key_waiters[fetch] -= 1
            if not self._key_waiters[fetch]:
                del self._key_waiters[fetch]
        return fetch.result() is not None

    def _undecided(self, what: str, reason: str, call: CallFacts) -> Unavailable:
        self.record(call, "undecided", reason=reason, code=Unavailable.code)
        return Unavailable(what)


def build_limits(validator: TokenValidator | None, rate_limits: RateLimits, *, clock: Clock) -> CallLimits | None:
    """Return the limits for callers of a validator: its settings' if it reloads those, else `rate_limits`."""
    if validator is None:
        return None
    metrics = validator.metrics if isinstance(validator, BaseValidator) else None
    if isinstance(validator, ReloadingValidator):
        return CallLimits(lambda: validator.settings.rate_limits, clock=clock, metrics=metrics)
    return CallLimits(rate_limits, clock=clock, metrics=metrics)


def parse_authorization(headers: Headers) -> tuple[str, Secret]:
    """Return the scheme in lower case (RFC 9110 section 11.1) and what follows, of one value with one space."""
    values = headers.get("authorization", ())
    if not values:
        raise Rejected("The call carries no credential.", reason="missing")
    if len(values) > 1:
        raise Rejected(reason="several")
    found = _CREDENTIAL.fullmatch(values[0])
    if found is None:
        raise Rejected(reason="malformed")
    return found[1].lower(), Secret(found[2])


def _read_token(headers: Headers, *, accepts_basic: bool) -> Secret:
    """Return the token of a Bearer credential, or the password of a Basic one (RFC 7617)."""
    scheme, credential = parse_authorization(headers)
    if scheme == "bearer":
        return credential
    if scheme != "basic" or not accepts_basic:
        raise Rejected(reason="scheme")
    encoded = credential.reveal().rstrip("=")  # Arrow's Go clients leave the padding out
    try:
        decoded = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        raise Rejected(reason="malformed") from None
    password = decoded.partition(":")[2]
    if re.fullmatch(r"[!-~]+", password) is None:  # it goes back as a header
        raise Rejected(reason="malformed")
    return Secret(password)
