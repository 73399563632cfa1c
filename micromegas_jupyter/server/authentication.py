"""Who makes a call, and whether they call too often: reads the one `authorization` header and asks the validator.

What makes a token acceptable is the validator's knowledge; refusals become statuses in `statuses`.
"""

import asyncio
import base64
import binascii
import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from micromegas_jupyter.access.audit import AccessAudit, AccessEvent, CallFacts, Claimed, checking_for
from micromegas_jupyter.access.config import ReloadingValidator
from micromegas_jupyter.access.jwks import KeysPending
from micromegas_jupyter.access.rate_limit import CallLimits
from micromegas_jupyter.access.validator import BaseValidator, Refused, Undecided, event_of
from micromegas_jupyter.config.access import RateLimits
from micromegas_jupyter.core.protocols import AuthContext, AuthType, HiddenText, Secret, TokenValidator
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import Rejected, ResourcesExhausted, Unavailable
from micromegas_jupyter.oidc.keys import KeySet
from micromegas_jupyter.server.headers import UNKNOWN_ADDRESS, Headers

_ANYONE: Final = AuthContext(subject="anonymous", issuer="none", auth_type=AuthType.NONE, is_admin=True)
_VALIDATION_THREADS: Final = 16
_MAX_CHECKS: Final = 1024
# One for the keys that there should be, one for newer ones, one for a change of settings meanwhile.
_MAX_KEY_WAITS: Final = 3
# So many calls may wait for one fetch as long as it lasts. Others wait for a moment: at a start under load nearly all
# fetches end within it, and an issuer that does not answer must not fill the server with calls.
_PATIENT_WAITERS: Final = 256
_MOMENT_SECONDS: Final = 1.0
_CREDENTIAL: Final = re.compile(r"([A-Za-z]{1,16}) ([!-~]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """The one credential of a call: the scheme in lower case, and what follows it."""

    scheme: str
    text: Secret = field(repr=False)


@dataclass(slots=True)
class _Arrival:
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    waiter_count: int = 0


class KeyWaiters:
    """Lets calls wait for keys on the event loop, so that no issuer holds the threads that check credentials."""

    def __init__(self) -> None:
        self._arrivals: dict[Future[KeySet | None], _Arrival] = {}

    async def wait_for(self, fetch: Future[KeySet | None]) -> bool:
        """Wait for a fetch and return whether it brought keys; too many who wait get a moment only."""
        arrival = self._arrivals.get(fetch) or self._expect(fetch)
        limit_seconds = None if arrival.waiter_count < _PATIENT_WAITERS else _MOMENT_SECONDS
        arrival.waiter_count += 1
        try:
            async with asyncio.timeout(limit_seconds):
                await arrival.ended.wait()
        except TimeoutError:
            return False
        finally:
            arrival.waiter_count -= 1
        return fetch.done() and fetch.result() is not None

    def _expect(self, fetch: Future[KeySet | None]) -> _Arrival:
        loop = asyncio.get_running_loop()
        arrival = self._arrivals[fetch] = _Arrival()

        def end() -> None:
            self._arrivals.pop(fetch, None)
            arrival.ended.set()

        def tell(_fetch: object) -> None:
            # Called on the thread that fetched; the loop may have been closed meanwhile.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(end)

        fetch.add_done_callback(tell)
        return arrival


class Authenticator:
    """Tells who makes a call, and turns away who calls too often.

    Checks run on threads of their own, so that they neither hold up the event loop nor take the threads of anything
    else. A check that needs keys which are being fetched waits on the event loop, so that an issuer that does not
    answer takes no thread from the others. Everything but those threads belongs to the event loop.

    Each refusal leaves one audit event: the validator's own, or one of this class for what the validator is not
    asked about.

    Args:
        validator: Answers who bears a token; None lets everyone in as administrator. Closed by its owner.
        check_seconds: How long a check may take.
        limits: How often callers may call; None for any number.
    """

    def __init__(
        self, validator: TokenValidator | None, *, check_seconds: float, limits: CallLimits | None = None
    ) -> None:
        self._validator = validator
        self._check_seconds = check_seconds
        self._limits = limits
        self._threads = ThreadPoolExecutor(_VALIDATION_THREADS, thread_name_prefix="token-check")
        self._check_count = 0
        self._key_waiters = KeyWaiters()
        self._writes_events = isinstance(validator, BaseValidator)
        self.audit = validator.audit if isinstance(validator, BaseValidator) else AccessAudit()

    async def authenticate(self, headers: Headers, describe: Callable[[], CallFacts] = CallFacts) -> AuthContext:
        """Return the caller of a call with these headers: exactly one `authorization`, of the `Bearer` scheme.

        Args:
            headers: The call's headers.
            describe: Gathers what audit events tell of the call; not asked for a caller who is known already.
        """
        if self._validator is None:
            return _ANYONE
        token = self._read(_bearer_token, headers, describe)
        return await self._identify(HiddenText(token.reveal()), self._validator, describe)

    async def exchange(
        self, headers: Headers, describe: Callable[[], CallFacts] = CallFacts
    ) -> tuple[AuthContext, Secret]:
        """Return the caller and the bearer token for later calls, from a `Bearer` or `Basic` credential.

        With `Basic` the password is the token or API key; the user name says nothing.
        """
        if self._validator is None:
            return _ANYONE, Secret(_ANYONE.subject)
        token = self._read(_bearer_or_password, headers, describe)
        return await self._identify(HiddenText(token.reveal()), self._validator, describe), token

    def record(self, event: AccessEvent, call: CallFacts) -> None:
        """Write an audit event about a call."""
        with checking_for(call):
            self.audit.record(event)

    def close(self) -> None:
        """Take no more checks; running ones end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _read(self, reader: Callable[[Headers], Secret], headers: Headers, describe: Callable[[], CallFacts]) -> Secret:
        try:
            return reader(headers)
        except Rejected as error:
            self.record(AccessEvent(outcome="refused", reason=error.reason, code=error.code), describe())
            raise

    async def _identify(self, token: str, validator: TokenValidator, describe: Callable[[], CallFacts]) -> AuthContext:
        caller = validator.cached_context(token)
        if caller is None:
            caller = await self._check(token, validator, describe())
        if self._limits is not None:
            try:
                self._limits.count_call(caller.issuer, caller.subject)
            except ResourcesExhausted as error:
                who = Claimed(issuer=caller.issuer, subject=caller.subject)
                event = AccessEvent(outcome="limited", reason="calls_of_identity", code=error.code, who=who)
                self.record(event, describe())
                raise
        return caller

    async def _check(self, token: str, validator: TokenValidator, call: CallFacts) -> AuthContext:
        address = call.client_address or UNKNOWN_ADDRESS
        if self._limits is None:
            return await self._ask(token, validator, call)
        try:
            self._limits.count_refusal(address)
        except ResourcesExhausted as error:
            self.record(AccessEvent(outcome="limited", reason="refusals_of_address", code=error.code), call)
            raise
        try:
            caller = await self._ask(token, validator, call)
        except Rejected:
            raise
        except BaseException:
            self._limits.forgive_refusal(address, is_accepted=False)
            raise
        self._limits.forgive_refusal(address)
        return caller

    async def _ask(self, token: str, validator: TokenValidator, call: CallFacts) -> AuthContext:
        if self._check_count >= _MAX_CHECKS:
            raise self._undecided("Too many credentials are being checked.", "too_many_checks", call)
        try:
            async with asyncio.timeout(self._check_seconds):
                return await self._ask_until_keys_are_here(token, validator, call)
        except TimeoutError:
            raise self._undecided("The credential could not be checked in time.", "check_timed_out", call) from None
        except (Rejected, Unavailable) as error:
            if not self._writes_events:
                self._record_foreign(error, token, call)
            raise

    async def _ask_until_keys_are_here(self, token: str, validator: TokenValidator, call: CallFacts) -> AuthContext:
        for _ in range(_MAX_KEY_WAITS):
            try:
                return await self._ask_once(token, validator, call)
            except KeysPending as keys:
                if not await self._key_waiters.wait_for(keys.fetch):
                    break  # to ask again would only start the next fetch
        return await self._ask_once(token, validator, call, is_last=True)

    async def _ask_once(
        self, token: str, validator: TokenValidator, call: CallFacts, *, is_last: bool = False
    ) -> AuthContext:
        check = partial(validator.validate_token, token)
        if isinstance(validator, BaseValidator):
            check = partial(validator.try_token, token, is_last=is_last)
        with checking_for(call):
            carry_over = copy_context().run
        self._check_count += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, carry_over, check)
        finally:
            self._check_count -= 1

    def _undecided(self, what: str, reason: str, call: CallFacts) -> Unavailable:
        self.record(AccessEvent(outcome="undecided", reason=reason, code=Unavailable.code), call)
        return Unavailable(what)

    def _record_foreign(self, error: Rejected | Unavailable, token: str, call: CallFacts) -> None:
        """Write the event of a validator that writes none itself."""
        finding = Refused(reason=error.reason) if isinstance(error, Rejected) else Undecided(reason="unavailable")
        with checking_for(call):
            self.audit.record(event_of(finding, token))


def build_limits(validator: TokenValidator | None, rate_limits: RateLimits, *, clock: Clock) -> CallLimits | None:
    """Return the limits for callers of a validator, counted in its metrics; none where nobody says who calls.

    A validator that reads its settings again brings limits that change with them; `rate_limits` are for any other.
    """
    if validator is None:
        return None
    metrics = validator.metrics if isinstance(validator, BaseValidator) else None
    if isinstance(validator, ReloadingValidator):
        return CallLimits(lambda: validator.settings.rate_limits, clock=clock, metrics=metrics)
    return CallLimits(rate_limits, clock=clock, metrics=metrics)


def parse_authorization(headers: Headers) -> Credential:
    """Read the `authorization` header: exactly one value, a scheme, one space, printable ASCII.

    Source: RFC 9110 section 11.1 (the scheme is case-insensitive).
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


def _bearer_token(headers: Headers) -> Secret:
    credential = parse_authorization(headers)
    if credential.scheme != "bearer":
        raise Rejected(reason="scheme")
    return credential.text


def _bearer_or_password(headers: Headers) -> Secret:
    credential = parse_authorization(headers)
    match credential.scheme:
        case "bearer":
            return credential.text
        case "basic":
            return _password(credential.text)
        case _:
            raise Rejected(reason="scheme")


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
