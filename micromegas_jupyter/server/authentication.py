"""Identifies the caller of each call and writes the audit log: metadata, credential, attribution, and audit line.

Identity headers (`x-auth-*`) are never read, so sending them has no effect. Each query, ingest, and export writes one
JSON line to the logger `micromegas_jupyter.audit`, whatever its outcome. Field names are upstream's, in upstream's
order, with additional fields. For rejected calls, see `access.audit`.
"""

import asyncio
import base64
import binascii
import functools
import ipaddress
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache, partial
from hashlib import sha256
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from micromegas_jupyter.access.audit import (
    MAX_FIELD_CHARACTERS,
    AccessAudit,
    AccessEvent,
    CallFacts,
    Claimed,
    checking_for,
    encode_line,
    utc_text,
)
from micromegas_jupyter.access.config import ReloadingValidator
from micromegas_jupyter.access.jwks import KeysPending
from micromegas_jupyter.access.validator import BaseValidator, CallLimits, Refused, Undecided, event_of, token_name
from micromegas_jupyter.config.access import RateLimits
from micromegas_jupyter.core.log_writer import RECEIPT_FIELD, Receipt
from micromegas_jupyter.core.protocols import AuthContext, AuthType, TokenValidator
from micromegas_jupyter.core.read_only import READ_ONLY_HEADER
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock, HiddenText, Secret
from micromegas_jupyter.engine.contract import ANY, TimeRange
from micromegas_jupyter.engine.scanner import sql_hash
from micromegas_jupyter.errors import (
    InternalError,
    MicromegasError,
    PermissionDenied,
    QueryDenied,
    Rejected,
    ResourcesExhausted,
    Unavailable,
    UsageError,
)
from micromegas_jupyter.executors.pool import StatementReport
from micromegas_jupyter.executors.protocol import Statement
from micromegas_jupyter.flightsql.framing import Compression
from micromegas_jupyter.oidc.jwt import KeySet
from micromegas_jupyter.server.recorder.log_records import AUDIT_LOGGER, MAX_AUDIT_LINE_BYTES, TARGET_FIELD
from micromegas_jupyter.telemetry.conversion import QUERY_AUDIT_TARGET

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
# One wait for missing keys, one for newer keys, and one for settings that change in between.
_MAX_KEY_WAITS: Final = 3
# This many calls may wait for a fetch to finish. Others wait only briefly: during startup under load, nearly all
# fetches finish in time, and an unresponsive issuer must not fill the server with calls.
_MAX_PATIENT_WAITERS: Final = 256
_BRIEF_WAIT_SECONDS: Final = 1.0
_CREDENTIAL: Final = re.compile(r"([A-Za-z]{1,16}) ([!-~]+)")

Headers = Mapping[str, tuple[str, ...]]
CheckCaller = Callable[[AuthContext, Headers], None]


class ReceivedHeaders(dict[str, tuple[str, ...]]):
    """Headers with a credential; a verbose traceback shows only their names."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"ReceivedHeaders({', '.join(sorted(self))})"

    __str__ = __repr__


def group_headers(metadata: Iterable[tuple[str, str | bytes]] | None) -> Headers:
    """Return a call's text headers, each with all of its values in order; skip binary headers."""
    grouped = ReceivedHeaders()
    for key, value in metadata or ():
        if isinstance(value, str):
            grouped[key] = (*grouped.get(key, ()), value)
    return grouped


def single_value(headers: Headers, name: str) -> str | None:
    """Return the value of a header that may be sent only once, or None if it is missing."""
    values = headers.get(name, ())
    if len(values) > 1:
        raise UsageError(f"The header {name} was sent {len(values)} times.", remedy="Send it once.")
    return values[0] if values else None


def parse_read_only(headers: Headers) -> bool:
    """Return whether headers make a call read-only; anything but `true` and `false` is rejected."""
    match headers.get(READ_ONLY_HEADER, ()):
        case () | ("false",):
            return False
        case ("true",):
            return True
        case _:
            raise UsageError(
                f"The header {READ_ONLY_HEADER} must be true or false.", remedy="Send true, or leave it out."
            )


def parse_statement(
    headers: Headers, sql: str, caller: AuthContext, parameters: tuple[bytes, ...] = (), *, is_read_only: bool
) -> Statement:
    """Return a statement with the values of `query_range_begin`, `query_range_end`, `limit`, and `preserve_dictionary`.

    Like upstream, ignores a range with only one end, and treats an empty end as missing.
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
        is_read_only=is_read_only,
    )


def parse_compression(headers: Headers) -> Compression | None:
    """Parse `x-micromegas-compression`, the row compression; `none` is equivalent to a missing header."""
    match (_first(headers, COMPRESSION_HEADER) or "none").lower():
        case "none":
            return None
        case "lz4" | "zstd" as compression:
            return compression
        case _:
            raise UsageError(
                f"The header {COMPRESSION_HEADER} is not a supported compression.",
                remedy="Send lz4, zstd or none, or leave it out.",
            )


def parse_client_tags(headers: Headers) -> dict[str, str]:
    """Return the client's description from its `x-client-*` headers, with the audit's field names."""
    tags = {
        "client": _first(headers, "x-client-type") or _UNKNOWN,
        "agent": _first(headers, "x-client-agent") or _UNKNOWN,
        "entrypoint": _first(headers, "x-client-entrypoint") or _UNKNOWN,
    }
    optional = {name: _first(headers, f"x-client-{name}") for name in ("session", "notebook", "cell")}
    return tags | {name: value for name, value in optional.items() if value}


def find_client_address(peer: str, headers: Headers, trusted_proxies: frozenset[str]) -> str:
    """Return the client's IP address; forwarding headers count only if the peer is a trusted proxy.

    The last entry of `x-forwarded-for` is the proxy's own and may have a port. If it is unreadable, no other header is
    trusted: many proxies pass on an `x-real-ip` that the client made up. `peer` is gRPC's name, such as
    `ipv4:127.0.0.1:4711` or `ipv6:[::1]:4711`, possibly percent-encoded.
    """
    return find_forwarded_address(_peer_address(peer), headers, trusted_proxies)


def find_forwarded_address(address: str, headers: Headers, trusted_proxies: frozenset[str]) -> str:
    """Return the client's IP address in the same way, given the peer's address."""
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
    """Return the address of `192.0.2.7`, `192.0.2.7:4711`, `2001:db8::7`, or `[2001:db8::7]:4711`, or None."""
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
    begin = parse_time(begin_text, "query_range_begin", rounds_up=False)
    end = parse_time(end_text, "query_range_end", rounds_up=True)
    if end < begin:
        raise UsageError("The query's time range ends before it begins.", remedy="Swap begin and end.")
    return TimeRange(begin=begin, end=end)


def parse_time(text: str, header: str, *, rounds_up: bool) -> datetime:
    """Parse an RFC 3339 time; fractions of a microsecond widen the range so that no rows are lost."""
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
        f"The header {header} is not a valid time.",
        remedy="Send an RFC 3339 time with an offset, such as 2026-11-24T12:00:00Z.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """The user behind a call, for the audit; `service_account_name` is the name of the delegating API key."""

    user: str
    email: str
    name: str | None = None
    service_account_name: str | None = None


def resolve_attribution(caller: AuthContext, headers: Headers) -> Attribution:
    """Return the user that a call is attributed to: the caller, or the one in a delegating service's headers."""
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
    """Return the user and address from a call's `x-user-*` headers."""
    with suppress(UsageError):
        return frozenset(filter(None, (_decode_name(headers, name) for name in ("x-user-id", "x-user-email"))))
    return frozenset()


def _decode_name(headers: Headers, name: str) -> str | None:
    """Return a percent-encoded header's decoded text, or the original text if it can't be decoded."""
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
            f"The header {name} does not contain a printable name.",
            remedy=f"Send at most {_MAX_NAME_CHARACTERS} printable characters, percent-encoded in UTF-8.",
        )
    return text


class Authenticator:
    """Identifies callers and rejects those who call too often; each rejection writes one audit event.

    Checks run on separate threads. A check that needs keys which are being fetched waits on the event loop, so that an
    issuer that does not respond doesn't block threads. Everything else belongs to the event loop. Without a validator,
    everyone is an administrator. `check_caller` may reject a caller with a valid credential.
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
        """Return the caller of a call with exactly one `authorization` header, with the scheme `Bearer`."""
        return (await self.exchange(headers, describe, accepts_basic=False))[0]

    async def exchange(
        self, headers: Headers, describe: Callable[[], CallFacts] = CallFacts, *, accepts_basic: bool = True
    ) -> tuple[AuthContext, Secret]:
        """Return the caller and the bearer token for later calls; for a `Basic` credential, the token is the password.

        `describe` returns the call's facts for audit events; it is not called for cached callers.
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
        """Reject a caller who has lost access, including since the call began."""
        if self._check_caller is None:
            return
        try:
            self._check_caller(caller, headers)
        except Rejected as error:
            self.record(describe(), "refused", reason=error.reason, code=error.code, caller=caller)
            raise

    def record(  # noqa: PLR0913 - what an event has
        self,
        call: CallFacts,
        outcome: str,
        *,
        reason: str | None = None,
        code: str | None = None,
        caller: AuthContext | None = None,
        credential: str | None = None,
    ) -> None:
        """Write an audit event about a call."""
        who = Claimed() if caller is None else Claimed(issuer=caller.issuer, subject=caller.subject)
        with checking_for(call):
            self._audit.record(AccessEvent(outcome=outcome, reason=reason, code=code, who=who, credential=credential))

    def close(self) -> None:
        """Stop accepting checks, but let running ones finish."""
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
                            break  # a retry would only start the next fetch
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
        """Wait for a fetch, only briefly if too many calls are waiting, and return whether it returned keys."""
        is_patient = self._key_waiters[fetch] < _MAX_PATIENT_WAITERS
        self._key_waiters[fetch] += 1
        try:
            async with asyncio.timeout(None if is_patient else _BRIEF_WAIT_SECONDS):
                await asyncio.shield(asyncio.wrap_future(fetch))  # others are waiting for it, too
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
    """Return the limits for a validator's callers: from its settings if it reloads them, otherwise `rate_limits`."""
    if validator is None:
        return None
    metrics = validator.metrics if isinstance(validator, BaseValidator) else None
    if isinstance(validator, ReloadingValidator):
        return CallLimits(lambda: validator.settings.rate_limits, clock=clock, metrics=metrics)
    return CallLimits(rate_limits, clock=clock, metrics=metrics)


def parse_authorization(headers: Headers) -> tuple[str, Secret]:
    """Return the only value's scheme in lowercase (RFC 9110 section 11.1) and the rest of the value."""
    values = headers.get("authorization", ())
    if not values:
        raise Rejected("The call doesn't contain a credential.", reason="missing")
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
    encoded = credential.reveal().rstrip("=")  # Arrow's Go clients omit the padding
    try:
        decoded = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        raise Rejected(reason="malformed") from None
    password = decoded.partition(":")[2]
    if re.fullmatch(r"[!-~]+", password) is None:  # it is returned as a header
        raise Rejected(reason="malformed")
    return Secret(password)


_AUDIT: Final = logging.getLogger(AUDIT_LOGGER)
_LOG: Final = logging.getLogger("micromegas_jupyter.server")
# Otherwise the root logger's default level would hide the lines from existing handlers.
_AUDIT.setLevel(logging.INFO)
_LOG_FIELDS: Final = vars(_AUDIT.makeRecord(AUDIT_LOGGER, logging.INFO, "", 0, "", (), None)) | {RECEIPT_FIELD: None}
_MAX_SQL_BYTES: Final = 16 * 1024
_MAX_ROLES: Final = 32
_MAX_ESCAPE_BYTES: Final = 12
_MAX_WHOLE_BYTES: Final = MAX_AUDIT_LINE_BYTES - len(',"truncated":["sql"]')
_MAX_HASHED_CHARACTERS: Final = 4096
_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOrigin:
    """A call, its caller, and its user; `credential` is what identified the caller, if anything."""

    query_id: str
    client_address: str
    tags: Mapping[str, str]
    caller: AuthContext
    attribution: Attribution
    is_read_only: bool = False
    credential: Secret | None = field(default=None, repr=False)


def build_origin(
    query_id: str, client_address: str, caller: AuthContext, headers: Headers, *, is_read_only: bool = False
) -> CallOrigin:
    """Return the origin of a Flight call or an HTTP request."""
    return CallOrigin(
        query_id=query_id,
        client_address=client_address,
        tags=parse_client_tags(headers),
        caller=caller,
        attribution=resolve_attribution(caller, headers),
        is_read_only=is_read_only,
        credential=None if caller.auth_type is AuthType.NONE else parse_authorization(headers)[1],
    )


def _build_log_record(line: str, target: str) -> logging.LogRecord:
    """Return a record like `makeRecord`, which would look up the file, thread, and process each time."""
    record = logging.LogRecord.__new__(logging.LogRecord)
    created = SYSTEM_CLOCK.now().timestamp()
    record.__dict__.update(_LOG_FIELDS, msg=line, created=created, msecs=created % 1 * 1000)
    setattr(record, TARGET_FIELD, target)
    return record


class CallAudit:
    """Measures one call and writes its audit line."""

    _target = AUDIT_LOGGER

    def __init__(self, origin: CallOrigin, clock: Clock) -> None:
        self._origin = origin
        self._clock = clock
        self._started = clock.monotonic()
        self._receipt: Receipt | None = None

    def seconds(self) -> float:
        """Return how long the call has taken so far."""
        return self._clock.monotonic() - self._started

    def write(self, status: str, error: MicromegasError | None = None) -> None:
        """Write the line: `ok`, `error` with the error, or `incomplete` if the client disconnected."""
        try:
            if _AUDIT.isEnabledFor(logging.INFO):
                caller = self._origin.caller
                roles = [role[:MAX_FIELD_CHARACTERS] for role in caller.roles[:_MAX_ROLES]]
                rights = {"roles": roles, "is_admin": caller.is_admin, "read_only": self._origin.is_read_only}
                line = encode_bounded(self._record(status, error) | rights, cut=self._cut_fields())
                record = _build_log_record(line, self._target)
                _AUDIT.handle(record)
                self._receipt = getattr(record, RECEIPT_FIELD)
        except Exception:  # noqa: BLE001 - a broken log must not decide what becomes of a call
            _LOG.exception("an audit line could not be written, query_id=%s", self._origin.query_id)

    async def deliver(self) -> None:
        """Wait until the line is delivered, so that the call may finish; raise ServerUnavailable if that fails."""
        if self._receipt is not None:
            await self._receipt.wait()

    def _record(self, status: str, error: MicromegasError | None) -> dict[str, object]:
        origin, attribution = self._origin, self._origin.attribution
        account = attribution.service_account_name
        record: dict[str, object] = {
            "query_id": origin.query_id,
            "client_ip": origin.client_address,
            **origin.tags,
            "user": attribution.user,
            "email": attribution.email,
        }
        if attribution.name is not None:
            record["name"] = attribution.name
        record["service_account"] = account is not None
        if account is not None:
            record["service_account_name"] = account
        record |= self._request()
        record["status"] = status
        if error is not None:
            record |= {"error": str(error), "error_class": classify_error(error)}
        record |= self._result()
        record["issuer"] = origin.caller.issuer
        if origin.credential is not None:
            record["credential"] = token_name(origin.credential.reveal())
        record["time"] = utc_text(self._clock.now())
        return record

    def _cut_fields(self) -> list[str]:
        """Return the fields that were truncated before encoding the line."""
        return ["roles"] if len(self._origin.caller.roles) > _MAX_ROLES else []

    def _request(self) -> dict[str, object]:
        raise NotImplementedError

    def _result(self) -> dict[str, object]:
        return {}


class QueryAudit(CallAudit):
    """The audit of one query; `report` contains the query's resource usage.

    The `hashes` of a long statement, or of large values, are computed in advance, off the event loop.
    """

    _target = QUERY_AUDIT_TARGET

    def __init__(
        self,
        origin: CallOrigin,
        statement: Statement,
        report: StatementReport,
        clock: Clock,
        *,
        hashes: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(origin, clock)
        self._statement = statement
        self._report = report
        self._hashes = hashes

    def _record(self, status: str, error: MicromegasError | None) -> dict[str, object]:
        record = super()._record(status, error)
        record.update(self._hashes or hash_statement(self._statement), reads=self._report.reads)
        return record

    def _cut_fields(self) -> list[str]:
        reads = self._report.reads or {}
        is_cut = any(ANY in columns for columns in reads.values())
        return [*super()._cut_fields(), *(["reads"] if is_cut else [])]

    def _request(self) -> dict[str, object]:
        statement, report = self._statement, self._report
        request: dict[str, object] = {"sql": statement.sql}
        if statement.time_range is not None:
            request["range_begin"] = statement.time_range.begin.isoformat()
            request["range_end"] = statement.time_range.end.isoformat()
        if statement.row_limit is not None:
            request["limit"] = statement.row_limit
        total, init = self.seconds(), report.context_init_seconds
        planning = total - report.waiting_seconds if report.planning_seconds is None else report.planning_seconds
        return request | {
            "context_init_ms": _milliseconds(init),
            "planning_ms": _milliseconds(max(0.0, planning - init)),
            "execution_ms": _milliseconds(report.execution_seconds),
            "setup_ms": _milliseconds(min(report.waiting_seconds + planning + report.execution_seconds, total)),
            "total_ms": _milliseconds(total),
        }

    def _result(self) -> dict[str, object]:
        report = self._report
        result: dict[str, object] = {} if report.planning_seconds is None else {"output_rows": report.rows}
        result |= {
            "bytes_scanned": report.bytes_scanned,
            "peak_memory_bytes": report.peak_memory_bytes,
            "spilled_bytes": report.spilled_bytes,
            "spill_count": report.spill_count,
            "cpu_ms": None if report.cpu_seconds is None else _milliseconds(report.cpu_seconds),
        }
        if report.files_total:
            result |= {name: getattr(report, name) for name in ("files_total", "files_read", "rows_scanned")}
        if report.cause is not None:
            result["ended_for"] = report.cause.value
        if report.ended_by is not None:
            result["ended_by"] = report.ended_by
        return result


class FollowAudit(QueryAudit):
    """The audit of a follow: a line at its start, every minute, and at its end, with its state and total rows."""

    def __init__(self, origin: CallOrigin, statement: Statement, report: StatementReport, clock: Clock) -> None:
        super().__init__(origin, statement, report, clock)
        self.state = "start"
        self.total_rows = 0

    def _request(self) -> dict[str, object]:
        return {**super()._request(), "follow": self.state}

    def _result(self) -> dict[str, object]:
        return {**super()._result(), "output_rows": self.total_rows}


class ActionAudit(CallAudit):
    """The audit of a call other than a query; until the line is written, `fields` describes the action."""

    def __init__(self, origin: CallOrigin, clock: Clock, action: str, **fields: object) -> None:
        super().__init__(origin, clock)
        self.fields: dict[str, Any] = {"action": action, **fields}

    def _request(self) -> dict[str, object]:
        return {**self.fields, "total_ms": _milliseconds(self.seconds())}


def hash_statement(statement: Statement) -> dict[str, object]:
    """Return the audit line fields that identify a statement and its values."""
    sql, values = statement.sql, statement.parameters
    hashes = _hash_short_sql(sql) if len(sql) <= _MAX_HASHED_CHARACTERS else _hash_sql(sql)
    return {**hashes, **({"values_sha256": _sha256(*values)} if values else {})}


def _hash_sql(sql: str) -> Mapping[str, object]:
    return {"sql_hash": sql_hash(sql), "statement_sha256": _sha256(sql.encode("utf-8", "surrogatepass"))}


_hash_short_sql: Final = lru_cache(maxsize=256)(_hash_sql)


def _sha256(*parts: bytes) -> str:
    digest = sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def encode_bounded(record: Mapping[str, object], *, cut: Sequence[str] = ()) -> str:
    """Return a record as a line of at most `MAX_AUDIT_LINE_BYTES`; its `truncated` field lists the `cut` fields.

    The statement gets the space that other fields leave: an ASCII escape is up to six times as long as its character.
    """
    sql = record.get("sql", "")
    long = [name for name, text in record.items() if isinstance(text, str) and len(text) > MAX_FIELD_CHARACTERS]
    cut = [*cut, *(name for name in long if name != "sql")]
    if not cut and isinstance(sql, str) and len(sql) <= _MAX_SQL_BYTES and sql.isascii():
        with suppress(ValueError, TypeError):
            # Ten times as fast as `encode_line` for short lines without escapes.
            line = _encode(record)
            if line.isascii() and b"\x7f" not in line and len(line) <= _MAX_WHOLE_BYTES:
                return line.decode()
    fields = {name: value for name, value in record.items() if name != "sql"}
    if not isinstance(sql, str) or "sql" not in record:
        return encode_line({**fields, **({"truncated": cut} if cut else {})})
    kept = sql.encode("utf-8", "replace")[:_MAX_SQL_BYTES].decode("utf-8", "ignore")
    others = encode_line({**fields, "sql": "", "truncated": [*cut, "sql"]})
    kept = _fit(kept, MAX_AUDIT_LINE_BYTES - len(others))
    if kept != sql:
        cut.append("sql")
    return encode_line({**record, "sql": kept, **({"truncated": cut} if cut else {})})


def _fit(text: str, max_bytes: int) -> str:
    """Return the longest prefix of a string that takes up at most this many bytes of a line."""
    encoded = encode_line({"sql": text})[len('{"sql":"') : -len('"}')]
    if len(encoded) <= max_bytes:
        return text
    for end in range(max_bytes, max(0, max_bytes - _MAX_ESCAPE_BYTES), -1):
        with suppress(ValueError):  # it was cut within an escape sequence
            return str(json.loads(f'"{encoded[:end]}"')).encode("utf-8", "ignore").decode()
    return ""


def classify_error(error: MicromegasError) -> str:
    """Return upstream's class for an error: `user`, `resource`, `internal`, or `denied`."""
    if isinstance(error, QueryDenied) or error.grpc_code == "PERMISSION_DENIED":
        return "denied"
    if isinstance(error, ResourcesExhausted):
        return "resource"
    if isinstance(error, InternalError) or error.grpc_code in {"UNAVAILABLE", "INTERNAL"}:
        return "internal"
    return "user"


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
