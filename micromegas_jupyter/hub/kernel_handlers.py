"""The service's JSON endpoints for kernels: the user's bearer token, and sign-in by redirect."""

import asyncio
import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from cachetools import TTLCache
from tornado import web

from micromegas_jupyter.auth.flows.jupyter import MAX_AUTHORIZATION_CHARACTERS, RANDOM_BYTES, digest_of, is_web_address
from micromegas_jupyter.core.http import ProviderHttp
from micromegas_jupyter.core.system import SYSTEM_CLOCK, SYSTEM_RANDOMNESS, Clock, Randomness, Secret
from micromegas_jupyter.hub.callers import CallerLimits, HubApi, HubAudit, Refused, check_caller, client_address, refuse
from micromegas_jupyter.hub.settings import ServiceSettings
from micromegas_jupyter.hub.tokens import REFUSED_KEY, STALE_KEY, HubProvider, StoredBearer, read_bearer

LIFETIME_SECONDS: Final = 600
MAX_PER_OWNER: Final = 20
MAX_SIGN_INS: Final = 2000
MAX_WAITING: Final = 4
_MAX_TOKEN_CHARACTERS: Final = 1024
_LOG: Final = logging.getLogger("micromegas_jupyter.hub")
_SCHEME: Final = "bearer "
MAX_PARAMETERS: Final = 50
# 32 random bytes as unpadded base64url (RFC 9700 section 4.7, RFC 7636 section 4.2).
_LONG_ENOUGH: Final = re.compile(r"[A-Za-z0-9._~-]{43,512}", re.ASCII)
_REFUSED_PARAMETERS: Final = frozenset({"request", "request_uri", "response_mode"})
"""These could redirect the browser or its response elsewhere than the other parameters specify (RFC 9101)."""

_BEARER_NAMES: Final = {"id_token": "ID token", "access_token": "access token"}
POLL_SECONDS: Final = 25.0


@dataclass(kw_only=True, eq=False)
class SignIn:
    """A pending sign-in; `answer` is the callback's query, and `waiting` is the number of calls waiting for it."""

    name: str = field(repr=False)
    owner: str
    state_digest: str
    authorization_url: Secret
    answer: Secret | None = None
    has_answer: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    waiting: int = 0


class SignIns:
    """All pending sign-ins; for one event loop. Beyond the limit per owner or in total, the oldest are dropped."""

    def __init__(self, *, clock: Clock, randomness: Randomness) -> None:
        self._randomness = randomness
        self._by_name: TTLCache[str, SignIn] = TTLCache(MAX_SIGN_INS, LIFETIME_SECONDS, timer=clock.monotonic)

    def __len__(self) -> int:
        return len(self._by_name)

    def begin(self, owner: str, *, state: str, authorization_url: Secret) -> SignIn:
        """Register a sign-in and return it with its new name; raises `ValueError` if the state is already in use."""
        digest = digest_of(state)
        known = list(self._by_name.values())  # oldest first
        if any(sign_in.state_digest == digest for sign_in in known):
            raise ValueError("this state is already in use")
        own = [sign_in for sign_in in known if sign_in.owner == owner]
        for sign_in in own[: max(0, len(own) - MAX_PER_OWNER + 1)] or known[: max(0, len(known) - MAX_SIGN_INS + 1)]:
            self._by_name.pop(sign_in.name, None)
        name = self._randomness.token_urlsafe(RANDOM_BYTES)
        sign_in = SignIn(name=name, owner=owner, state_digest=digest, authorization_url=authorization_url)
        self._by_name[name] = sign_in
        return sign_in

    def by_name(self, name: str) -> SignIn | None:
        """Return the sign-in with this name, or None if it has finished."""
        return self._by_name.get(name)

    def by_state(self, state: str) -> SignIn | None:
        """Return the sign-in with this state that is still waiting for a browser, or None."""
        digest = digest_of(state)
        waiting = (sign_in for sign_in in list(self._by_name.values()) if sign_in.answer is None)
        return next((sign_in for sign_in in waiting if sign_in.state_digest == digest), None)

    def hand_over(self, sign_in: SignIn, answer: Secret) -> None:
        """Store the browser's callback for the kernel."""
        sign_in.answer = answer
        sign_in.has_answer.set()

    async def take_answer(self, sign_in: SignIn, *, timeout_seconds: float) -> Secret | None:
        """Wait for the callback and return it once, or None after the timeout."""
        sign_in.waiting += 1
        try:
            async with asyncio.timeout(timeout_seconds):
                await sign_in.has_answer.wait()
        except TimeoutError:
            return None
        finally:
            sign_in.waiting -= 1
        return None if self._by_name.pop(sign_in.name, None) is None else sign_in.answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The objects that all handlers share."""

    settings: ServiceSettings
    hub: HubApi
    audit: HubAudit
    provider: HubProvider
    sign_ins: SignIns
    limits: CallerLimits
    clock: Clock


def build_service(settings: ServiceSettings, *, clock: Clock = SYSTEM_CLOCK) -> Service:
    """Return the objects that the handlers share."""
    audit = HubAudit(clock=clock)
    return Service(
        settings=settings,
        hub=HubApi(settings.api_url, settings.api_token, tls=settings.internal_tls),
        audit=audit,
        provider=HubProvider(settings, clock=clock, http=ProviderHttp(ca_bundle=settings.ca_bundle)),
        sign_ins=SignIns(clock=clock, randomness=SYSTEM_RANDOMNESS),
        limits=CallerLimits(audit=audit, clock=clock),
        clock=clock,
    )


class JsonHandler(web.RequestHandler):
    """Responds to kernels. Cookies are ignored, so another site cannot make a browser do anything."""

    event = "refused"
    """The audit event of a rejected request."""

    def initialize(self, *, service: Service) -> None:
        """Set the objects that all handlers share."""
        self.service = service
        self.owner_name: str | None = None

    async def owner(self) -> str:
        """Return the Hub user name of the calling server's owner; raises `Refused` for any other caller."""
        found = await self.service.limits.fetch_owner(
            self._hub_token(), address=client_address(self.request), fetch=self.service.hub.fetch_owner
        )
        self.owner_name = found.name
        return check_caller(found)

    def body_members(self) -> Mapping[str, object]:
        """Return the request's JSON object; an empty body is an empty object."""
        if not self.request.body:
            return {}
        try:
            body = json.loads(self.request.body)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise refuse("invalid_request", what="The request body is not a JSON object.")
        return body

    def send(self, status: int, members: Mapping[str, object]) -> None:
        """Send a JSON object."""
        self.set_status(status)
        self.finish(json.dumps(members))

    def _hub_token(self) -> Secret | None:
        text = self.request.headers.get("Authorization", "")
        token = text[len(_SCHEME) :].strip()
        if text[: len(_SCHEME)].lower() != _SCHEME or not token or len(token) > _MAX_TOKEN_CHARACTERS:
            return None
        return Secret(token) if token.isascii() and token.isprintable() else None

    def set_default_headers(self) -> None:
        """Set the headers of every response."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")

    def check_xsrf_cookie(self) -> None:
        """Skip the check: access requires the Authorization header, which browsers don't send automatically."""

    def write_error(self, status_code: int, **details: Any) -> None:
        """Send an error, including errors for which there is no handler."""
        error = details.get("exc_info", (None, None, None))[1]
        if isinstance(error, Refused):
            self._send_refusal(error)
            return
        what = {404: "There is no such address.", 405: "This address does not accept that method."}
        if status_code >= 500:  # noqa: PLR2004 - HTTP
            refused = refuse("internal_error")
        else:
            refused = refuse("invalid_request", what=what.get(status_code, "The request could not be understood."))
        refused.status, refused.is_audited = status_code, False
        self._send_refusal(refused)

    def _send_refusal(self, refused: Refused) -> None:
        if refused.is_audited:
            address = client_address(self.request) if self.owner_name is None else None
            self.service.audit.write(self.event, owner=self.owner_name, client_ip=address, reason=refused.error)
        if refused.retry_after_seconds is not None:
            self.set_header("Retry-After", str(refused.retry_after_seconds))
        if refused.status == 401:  # noqa: PLR2004 - HTTP
            self.set_header("WWW-Authenticate", "Bearer")
        self.send(refused.status, {"error": refused.error, "message": refused.message})

    def send_error(self, status_code: int = 500, **details: Any) -> None:
        """Send an error with its own status, if it has one."""
        error = details.get("exc_info", (None, None, None))[1]
        super().send_error(error.status if isinstance(error, Refused) else status_code, **details)

    def log_exception(self, typ: type[BaseException] | None, value: BaseException | None, *_details: object) -> None:
        """Log the type of an unexpected error; rejections are in the audit log."""
        if not isinstance(value, Refused | web.HTTPError):
            _LOG.error("A call ended with %s.", "nothing" if typ is None else typ.__name__)


def check_authorization_url(url: object, *, endpoint: str, redirect_uri: str, client_id: str) -> str:
    """Return the state of a URL that the owner's browser may open; raises `Refused` for any other URL.

    The URL must be the provider's authorization endpoint, with a code request for this Hub's redirect and application,
    PKCE S256, and a sufficiently long state.
    """
    if not isinstance(url, str) or len(url) > MAX_AUTHORIZATION_CHARACTERS or not is_web_address(url):
        raise _invalid("is not an http or https URL")
    base, _, query = url.partition("?")
    endpoint_base, _, endpoint_query = endpoint.partition("?")
    if base != endpoint_base or urlsplit(url).fragment:
        raise _invalid("does not belong to the Hub's identity provider")
    parameters = _parse_query(query)
    if any(parameters.get(name) != value for name, value in _parse_query(endpoint_query).items()):
        raise _invalid("not with the Hub's identity provider")
    required = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "code_challenge_method": "S256",
    }
    wrong = next((name for name, value in required.items() if parameters.get(name) != value), None)
    if wrong is not None:
        raise _invalid(f"does not contain the correct {wrong}")
    if not _REFUSED_PARAMETERS.isdisjoint(parameters):
        raise _invalid("contains a parameter that overrides others")
    for name in ("state", "code_challenge"):
        if _LONG_ENOUGH.fullmatch(parameters.get(name, "")) is None:
            raise _invalid(f"does not contain a {name} of at least 43 characters")
    return parameters["state"]


def _parse_query(query: str) -> Mapping[str, str]:
    """Return the parameters; a repeated parameter is an error."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError:
        raise _invalid("contains too many parameters") from None
    parameters = dict(pairs)
    if len(parameters) != len(pairs):
        raise _invalid("contains a repeated parameter")
    return parameters


def _invalid(what: str) -> Refused:
    return refuse("invalid_sign_in", what=what)


class TokenHandler(JsonHandler):
    """`POST token`: returns tokens."""

    event = "token_refused"

    async def post(self) -> None:
        """Return the caller's own token."""
        self.body_members()
        name = await self.owner()
        held = await self.service.provider.exchange(name, await self._stored_bearer(name))
        expires_in = held.expires_at.timestamp() - self.service.clock.now().timestamp()
        self.service.audit.write("token_given", owner=name, expires_at=int(held.expires_at.timestamp()))
        self.send(
            200,
            {
                "access_token": held.token.reveal(),
                "token_type": "Bearer",
                "expires_at": math.floor(held.expires_at.timestamp()),
                "expires_in": max(0, math.floor(expires_in)),
                "issuer": self.service.settings.issuer,
                "user": name,
            },
        )

    async def _stored_bearer(self, name: str) -> StoredBearer:
        """Return the token in the stored auth state. Looking up the token's owner has already refreshed it."""
        for is_last in (False, True):
            state = await self.service.hub.fetch_auth_state(name)
            bearer = self.service.settings.bearer
            held = None if state is None else read_bearer(state, bearer)
            if state is None or held is None:
                raise refuse("no_auth_state", bearer=_BEARER_NAMES[bearer.value])
            if held.expires_at > self.service.clock.now():
                return held
            if state.get(REFUSED_KEY) is True or not state.get("refresh_token"):
                raise refuse("sign_in_again")
            if state.get(STALE_KEY) is True:
                raise refuse("not_renewed", bearer=_BEARER_NAMES[bearer.value])
            if not is_last:
                await self.owner()  # the Hub was busy for longer than the token's remaining lifetime
        raise refuse("provider_unavailable")


class _SignInHandler(JsonHandler):
    event = "sign_in_refused"

    def redirect_settings(self) -> tuple[str, str]:
        """Return the Hub's shared redirect URI and the application that it is registered for."""
        settings = self.service.settings
        if settings.redirect_uri is None or settings.redirect_client_id is None:
            raise refuse("no_redirect")
        return settings.redirect_uri, settings.redirect_client_id


class RedirectHandler(_SignInHandler):
    """`GET redirect`."""

    async def get(self) -> None:
        """Return the parameters of a redirect sign-in."""
        await self.owner()
        redirect_uri, client_id = self.redirect_settings()
        issuer = self.service.settings.issuer
        self.send(200, {"redirect_uri": redirect_uri, "issuer": issuer, "client_id": client_id})


class BeginHandler(_SignInHandler):
    """`POST sign-ins`."""

    async def post(self) -> None:
        """Start a sign-in for the caller and return its start page."""
        name = await self.owner()
        redirect_uri, client_id = self.redirect_settings()
        url = self.body_members().get("authorization_url")
        endpoint = await self.service.provider.authorization_endpoint()
        if endpoint is None:
            raise refuse("no_redirect")
        state = check_authorization_url(url, endpoint=endpoint, redirect_uri=redirect_uri, client_id=client_id)
        try:
            sign_in = self.service.sign_ins.begin(name, state=state, authorization_url=Secret(str(url)))
        except ValueError:
            raise refuse("invalid_request", what="A sign-in with this state is already in progress.") from None
        self.service.audit.write("sign_in_begun", owner=name)
        start_url = f"{self.service.settings.public_prefix}start/{sign_in.name}"
        self.send(201, {"name": sign_in.name, "start_url": start_url, "expires_in": LIFETIME_SECONDS})


class AnswerHandler(_SignInHandler):
    """`POST sign-ins/<name>/answer`."""

    async def post(self, name: str) -> None:
        """Return the browser's callback to the caller, once, as soon as it has arrived."""
        owner = await self.owner()
        sign_in = self.service.sign_ins.by_name(name)
        if sign_in is None or sign_in.owner != owner:
            raise refuse("unknown_sign_in")
        wait_seconds = self.body_members().get("wait_seconds", POLL_SECONDS)
        if not isinstance(wait_seconds, int | float) or not 0 <= wait_seconds <= POLL_SECONDS:
            raise refuse("invalid_request", what=f"wait_seconds must be a number from 0 to {POLL_SECONDS:g}.")
        if sign_in.waiting >= MAX_WAITING:
            raise refuse("slow_down", retry_after_seconds=1)
        answer = await self.service.sign_ins.take_answer(sign_in, timeout_seconds=wait_seconds)
        if answer is None:
            self.set_status(204)
            self.clear_header("Content-Type")
            self.finish()
            return
        self.service.audit.write("sign_in_answer_given", owner=owner)
        self.send(200, {"query": answer.reveal()})


class HealthHandler(JsonHandler):
    """`GET health`."""

    async def get(self) -> None:
        """Report that the service is running."""
        self.send(200, {"status": "ok"})


class NotFoundHandler(JsonHandler):
    """Handles all other addresses."""

    def prepare(self) -> None:
        """Send a "not found" error."""
        self.send_error(404)
